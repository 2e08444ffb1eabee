"""What this package and search_spaces add to `tiekd list` and to `tiekd run NAME`: packaged runs, studies and spaces."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from ablations.planning.search_config import SAMPLERS, SCHEDULERS
from ablations.planning.study import STUDIES_FOLDER
from search_spaces.space import SPACES_FOLDER

RUNS_FOLDER = Path(__file__).parent / "runs"


def run_files() -> dict[str, Path]:
    """The packaged run configs by name."""
    return _files(RUNS_FOLDER)


def runs() -> Mapping[str, str]:
    return {name: _comment(path) for name, path in run_files().items()}


def studies() -> Mapping[str, str]:
    return {name: yaml.safe_load(path.read_text()).get("title", "") for name, path in _files(STUDIES_FOLDER).items()}


def samplers() -> Mapping[str, str]:
    return {name: f"{spec.label}: {spec.description}" for name, spec in SAMPLERS.items()}


def schedulers() -> Mapping[str, str]:
    return {name: f"{spec.label}: {spec.description}" for name, spec in SCHEDULERS.items()}


def spaces() -> Mapping[str, str]:
    return {name: ", ".join(yaml.safe_load(path.read_text())["parameters"]) for name, path in _files(SPACES_FOLDER).items()}


def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _comment(path: Path) -> str:
    """The first line of a document if it is a comment."""
    first = path.read_text().partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
