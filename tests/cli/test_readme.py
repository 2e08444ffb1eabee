"""The commands of README.md and the documentation, executed in order with overrides that make the runs small.

Blocks marked `bash` are executed. Blocks marked `sh` are not: they need a network, a cluster or a name that only a reader
knows.
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT

PAGES = (
    "README.md",
    "docs/first-study.md",
    *(
        f"docs/how-to/{name}.md"
        for name in ("studies", "search", "reports", "paper-tables", "teachers", "evaluate", "own-student")
    ),
)
SMALL = "--set data.train_frames=2 --set data.test_frames=2 --set optim.epochs=2 --set optim.batch_size=1"


def commands_of(page: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def demo_commands() -> list[str]:
    """The `tiekd` commands behind `make demo`."""
    done = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line.replace(".venv/bin/", "") for line in done.stdout.splitlines() if "bin/tiekd " in line]


def smaller(command: str, address: str) -> str:
    """Add what makes the command's runs small, and `--address` to a launch."""
    small = SMALL.replace("--set optim.epochs=2 ", "") if "studies/debug" in command else SMALL  # see shorten_debug
    launch = small if "--dry-run" in command else f"{small} --set execution.cpus_per_worker=1 --address {address}"
    options = {
        **dict.fromkeys(("run", "export"), SMALL),
        "ablate": launch,
        "search": f"{launch} --trials 2",
        "evaluate": "--set data.test_frames=2",
    }
    verb = next((word for word in shlex.split(command) if word in options), None)
    if verb == "search":
        command = re.sub(r" --trials \d+", "", command)  # an option is refused that is given twice
    return f"{command} {options[verb]}" if verb else command


def shorten_debug(study: Path) -> None:
    """Let each run of the study have 2 epochs, which it varies, so that no option can set them."""
    text, n_epochs = re.subn(r"epochs: (6|144)\b", "epochs: 2", study.read_text())
    assert n_epochs == 2
    study.write_text(text)


@pytest.mark.timeout(900)
def test_commands_work_in_order(tiekd, shared_cluster, in_folder: Path) -> None:
    """In a folder that holds the studies and runs of a checkout and nothing else."""
    shutil.copytree(ROOT / "ablations", "ablations")
    shorten_debug(Path("ablations/studies/debug.yaml"))
    first, *written = (command for page in PAGES for command in commands_of(page))
    assert first == "make demo"
    assert sum("tiekd ablate" in command for command in commands_of("README.md")) >= 3
    for command in dict.fromkeys([*demo_commands(), *written]):
        name, *words = shlex.split(smaller(command, shared_cluster))
        assert name == "tiekd"
        outcome = tiekd(*words)
        assert outcome.code == 0, f"{command}\n{outcome.out[-2000:]}\n{outcome.err[-2000:]}"
    assert Path("demo/report/tables.md").is_file()
    assert Path("demo/published/published.md").is_file()


def test_readme_has_at_most_1200_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200


def tree() -> dict[str, str]:
    """Return the paths of README.md's tree with their descriptions."""
    block = re.search(r"```\n(tiekd/.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert block
    found, folder = {}, ""
    for line in block[1].splitlines():
        name, _, description = line.strip().partition(" ")
        folder = folder if line.startswith(" ") else name
        found[folder + name if line.startswith(" ") else name] = description.strip()
    return found


def test_tree_lists_the_packages_completely() -> None:
    described = tree()
    assert all(described.values())
    assert [path for path in described if not (ROOT / path).exists()] == []
    for package in ("tiekd", "ablations", "reports"):
        entries = {f"{package}/{e.name}{'/' * e.is_dir()}" for e in (ROOT / package).iterdir() if not e.name.startswith("__")}
        assert {entry for entry in entries if entry.endswith((".py", "/"))} - described.keys() == set()
