"""The README's commands, executed in its order, as written but for overrides that make the runs small."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

SMALL = "--set data.train_frames=2 --set data.test_frames=2 --set optim.epochs=2 --set optim.batch_size=1"
SMALLER = {
    **dict.fromkeys(("run", "ablate", "export"), SMALL),
    "search": f"{SMALL} --trials 2",
    "evaluate": "--set data.test_frames=2",
}


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def demo_commands() -> list[str]:
    """The `tiekd` commands behind `make demo`."""
    done = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line.replace(".venv/bin/", "") for line in done.stdout.splitlines() if "bin/tiekd " in line]


def smaller(command: str) -> str:
    verb = next((word for word in shlex.split(command) if word in SMALLER), None)
    return f"{command} {SMALLER[verb]}" if verb else command


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder with what a command of the README names, and nothing made by hand."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "ablations", folder / "ablations")
    return folder


@pytest.mark.timeout(900)
def test_commands_work_in_order(clone):
    commands = readme_commands()
    assert commands[0] == "make demo"
    assert sum("tiekd ablate" in command for command in commands) >= 3
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in [*demo_commands(), *commands[1:]]:
        done = subprocess.run(
            shlex.split(smaller(command)), cwd=clone, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (clone / "demo/report/tables.md").is_file()
    assert (clone / "demo/published/published.md").is_file()


def test_files_it_names_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_tree_names_modules_that_exist():
    tree = re.search(r"```\n(tiekd/.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL).group(1)
    folder, missing = "", []
    for line in tree.splitlines():
        top = re.match(r"(\w+)/", line)
        folder = top.group(1) if top else folder
        missing += [name for name in re.findall(r"\b(\w+\.py)\b", line) if not list((ROOT / folder).rglob(name))]
    assert missing == []
