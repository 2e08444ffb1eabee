"""Imports point one way, and what only prints help loads nothing heavy."""

import ast
import graphlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.paths import ROOT

PACKAGES = ("tiekd", "search_spaces", "ablations", "reports")
# What each package may import of ours, beside itself, and of Ray.
ALLOWED = {
    "tiekd": set(),
    "search_spaces": {"tiekd.config", "tiekd.config.documents", "tiekd.errors"},
    "reports": {"tiekd"},
    "ablations": {"tiekd", "search_spaces", "ray"},
}
WATCHED = {*PACKAGES, "ray"}
WIDEST = 14  # entries of a folder


def imported_by(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at its top or inside its functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_allowed(name: str, package: str) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in {package, *ALLOWED[package]})


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported_by(path)
        if name.split(".")[0] in WATCHED and not is_allowed(name, package)
    }
    assert wrong == set()


WITHOUT_RAY = ("ablations/planning", "ablations/monitor", "search_spaces", "reports", "tiekd")
WITHOUT_PYTORCH = (
    "ablations/planning",
    "search_spaces",
    "tiekd/config",
    "tiekd/store",
    "tiekd/errors.py",
    "tiekd/distill/preflight.py",
)
PYTORCH = ("torch", "torchvision", "timm")


@pytest.mark.parametrize(
    ("place", "forbidden"), [(p, ("ray",)) for p in WITHOUT_RAY] + [(p, PYTORCH) for p in WITHOUT_PYTORCH], ids=str
)
def test_a_place_does_without(place, forbidden):
    files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    assert files
    assert {
        f"{path.relative_to(ROOT)}: {name}" for path in files for name in imported_by(path) if name.split(".")[0] in forbidden
    } == set()


def modules() -> dict[str, Path]:
    """Our modules by full name."""
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> dict[str, set[str]]:
    """Which of our modules each of our modules imports."""
    known = modules()

    def module_of(name: str) -> str:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name

    return {name: {module_of(found) for found in imported_by(path)} - {name, ""} for name, path in known.items()}


def test_no_circle_of_modules_or_folders():
    """Folders are the second level of a package; what lies directly in a package counts for itself."""
    graphs = {"modules": imports(), "folders": {}}
    for name, found in graphs["modules"].items():
        folder = ".".join(name.split(".")[:2])
        graphs["folders"].setdefault(folder, set()).update({".".join(f.split(".")[:2]) for f in found} - {folder})
    for graph in graphs.values():
        assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_folder_is_wide():
    """A folder that holds more is searched, not seen."""
    entries = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if "__pycache__" not in path.parts]
    tracked = [path.parent for path in entries if path.name != "py.typed"]
    assert {str(folder.relative_to(ROOT)) for folder, count in Counter(tracked).items() if count > WIDEST} == set()


def test_the_top_level_holds_what_the_readme_lists():
    """A command that a test runs in the wrong folder once left files there, which were committed."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a clone, or no git")
    command = ["git", "-c", "safe.directory=*", "ls-files"]  # the clone may be another user's
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    folders = {path.split("/")[0] for path in tracked if "/" in path}
    assert folders == {".ci", *PACKAGES, "benchmarks", "docs", "examples", "tests"}


def test_a_forbidden_import_inside_a_function_is_seen(tmp_path):
    (tmp_path / "module.py").write_text("def f():\n    from ray import tune\n    import reports.tables.table\n")
    assert {name for name in imported_by(tmp_path / "module.py") if not is_allowed(name, "tiekd")} == {
        "ray.tune",
        "reports.tables.table",
    }


def loaded_by(*statements: str, of: set[str]) -> set[str]:
    """Which packages a process has loaded after some statements."""
    script = "; ".join(["import sys", *statements, f"print(*({of} & set(sys.modules)))"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True, cwd=ROOT)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_a_launch_does_without_pytorch_and_mlflow():
    """Its trials import PyTorch in their own processes: seconds that the launching one need not spend before them."""
    modules = (
        "execution.node_checks",
        "execution.sweep",
        "execution.trial",
        "execution.tune_callback",
        "monitor.loggers",
        "prepared_study",
        "search.schedulers",
        "search.search",
        "search.tune_searcher",
    )
    loaded = loaded_by(
        *(f"import ablations.{name}" for name in modules),
        "import tiekd.store.run_store",
        "ablations.monitor.loggers.TensorBoard('demo', tiekd.store.run_store.RunStore('nowhere'))",
        of={"torch", "timm", "mlflow"},
    )
    assert loaded == set()


def test_a_trial_loads_what_it_computes_with_and_no_more():
    loaded = loaded_by(
        "import ablations.execution.trial",
        "import ablations.execution.runtime_tune, tiekd.distill.run, tiekd.distill.runtime",
        of={"torch", "matplotlib", "mlflow", "onnx", "optuna", "reports", "scipy", "sqlalchemy", "transformers"},
    )
    assert loaded == {"torch"}


def test_the_process_that_waits_for_workers_loads_no_networks():
    """A trial with several workers starts 4 s of CPU time sooner."""
    assert loaded_by("import ablations.execution.runtime_train", of={"timm", "torchvision"}) == set()


MISTAKES = """
import sys
from tiekd.__main__ import main
for words in {commands}:
    sys.argv = ["tiekd", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert end.code == 2, words
print(*({{"torch", "ray"}} & set(sys.modules)))
"""


def test_what_is_not_there_is_told_without_pytorch(tmp_path):
    """In half a second, then, and not in five."""
    told = {
        "run no.yaml": "config no.yaml: no such file",
        "evaluate no.safetensors": "weights no.safetensors: no such file",
        "export no.safetensors --out a.onnx": "weights no.safetensors: no such file",
        "predict no.safetensors no.png --out made": "no.png: no such file or folder",
        "teacher export no.yaml --out maps": "config no.yaml: no such file",
        "teacher export no.yaml --weights no.safetensors --out maps": "config no.yaml: no such file",
        "view no --out made": "store no: no such folder",
        "measure no": "store no: no such folder",
        "ablate no.yaml": "study no.yaml: no such file",
    }
    command = [sys.executable, "-c", MISTAKES.format(commands=list(told))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True, cwd=tmp_path)
    assert done.stderr.splitlines() == [f"tiekd: {line}" for line in told.values()]
    assert done.stdout == "\n"
    assert list(tmp_path.iterdir()) == []


HELP = """
import sys
from tiekd.__main__ import build_command
for words in {commands}:
    try:
        build_command()([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0, words
    print("<<end>>")
print(sorted({{"torch", "ray", "pandas", "optuna"}} & set(sys.modules)))
"""
VERBS = [
    ["run"],
    ["diff"],
    ["evaluate"],
    ["predict"],
    ["export"],
    ["convert"],
    ["measure"],
    ["teacher", "export"],
    ["teacher", "import"],
    ["data", "check"],
    ["data", "synthesize"],
    ["data", "pack"],
    ["config", "show"],
    ["config", "schema"],
    ["list"],
    ["ablate"],
    ["search"],
    ["status"],
    ["dpm"],
    ["power"],
    ["report"],
    ["bundle"],
    ["view"],
]


@pytest.fixture(scope="module")
def help_pages() -> list[str]:
    """The output of `tiekd --help`, of each verb's, and the heavy packages that were loaded."""
    script = HELP.format(commands=[[], *VERBS])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True, cwd=ROOT)
    return done.stdout.split("<<end>>")


def test_help_lists_every_verb(help_pages):
    listed = help_pages[0].partition("--help")[2]
    assert set(re.findall(r"^  (\w+) +\S", listed, flags=re.MULTILINE)) == {v[0] for v in VERBS}
    assert "More:" not in listed  # every verb has a heading of its own


@pytest.mark.parametrize("position", range(len(VERBS)), ids=[" ".join(verb) for verb in VERBS])
def test_help_of_a_verb_shows_an_example_of_it(help_pages, position):
    example = " ".join(help_pages[position + 1].partition("Example:")[2].split())
    assert example.startswith(f"tiekd {' '.join(VERBS[position])} ")


@pytest.mark.parametrize("position", range(len(VERBS)), ids=[" ".join(verb) for verb in VERBS])
def test_examples_name_files_of_the_repository(help_pages, position):
    words = help_pages[position + 1].partition("Example:")[2].split("\n\n")[0].split()
    for word in words:
        if word.startswith(PACKAGES) and word.endswith(".yaml"):
            assert (ROOT / word).is_file()


def test_help_loads_nothing_heavy(help_pages):
    assert help_pages[-1].strip() == "[]"
