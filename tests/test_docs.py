"""The documentation names only what exists, and its generated pages are complete."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from tiekd.config import RunConfig

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED_PAGES = {ROOT / "docs/reference/commands.md", ROOT / "docs/reference/settings.md"}
GENERATE = """
import sys
sys.path.insert(0, "docs")
import hooks
print(hooks.commands_page(), hooks.settings_page(), sep="<<end>>")
sys.exit(bool({"torch", "ray"} & set(sys.modules)))
"""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", prose)
    targets = {(page.parent / link).resolve() for link in links} - GENERATED_PAGES
    assert {target for target in targets if not target.exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_modules_and_files_that_it_names_exist(page: Path) -> None:
    text = page.read_text()
    paths = set(
        re.findall(r"(?<![\w/])((?:tiekd|ablations|reports|search_spaces|tests|docs)/[\w./-]+\.(?:py|yaml|md|sh))\b", text)
    )
    to_be_written = set(re.findall(r"^`([\w/]+\.py)`:$", text, flags=re.MULTILINE))  # by readers who add their own
    assert {path for path in paths - to_be_written if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_names_exist(page: Path) -> None:
    for module, names in re.findall(
        r"^from ((?:tiekd|ablations|reports)[\w.]*) import ([\w, ]+)$", page.read_text(), flags=re.MULTILINE
    ):
        loaded = importlib.import_module(module)
        assert [name for name in names.split(", ") if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs/reference").glob("*.md")), ids=named)
def test_members_of_the_python_reference_exist(page: Path) -> None:
    """MkDocs itself skips a member that does not exist."""
    for module, names in re.findall(
        r"^::: ([\w.]+)\n    options:\n      members: \[(.*?)\]$", page.read_text(), flags=re.MULTILINE
    ):
        loaded = importlib.import_module(module)
        assert [name for name in names.split(", ") if not hasattr(loaded, name)] == []


@pytest.fixture(scope="module")
def generated() -> tuple[str, str]:
    """The pages of commands and settings, made without PyTorch and Ray."""
    done = subprocess.run([sys.executable, "-c", GENERATE], capture_output=True, text=True, timeout=240, check=True, cwd=ROOT)
    commands, settings = done.stdout.split("<<end>>")
    return commands, settings


def test_every_command_is_documented_with_an_example(generated: tuple[str, str]) -> None:
    sections = generated[0].split("\n### ")[1:]
    assert {"`tiekd run`", "`tiekd ablate`", "`tiekd teacher export`", "`tiekd report`"} <= {
        s.partition("\n")[0] for s in sections
    }
    for section in sections:
        assert "```bash\ntiekd " in section, section


def test_every_setting_is_documented(generated: tuple[str, str]) -> None:
    schema = RunConfig.model_json_schema()
    for section in schema["$defs"].values():
        for setting, described in section.get("properties", {}).items():
            nested = "$ref" in str(described)
            assert (f".{setting}`" if nested else f"| `{setting}` |") in generated[1]
    assert "| `fidelity` |" in generated[1]
