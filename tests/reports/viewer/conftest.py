"""A viewer of four real runs, and Chromium to open it in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.viewer_page import EVIL, Page


@dataclass(frozen=True)
class Viewed:
    """A store, its viewer, and the ids of its runs by name."""

    store: Path
    folder: Path
    runs: dict[str, str]


@pytest.fixture(scope="session")
def viewed(tmp_path_factory: pytest.TempPathFactory, tiekd: Callable, tiny: dict[str, Any], as_yaml: Callable) -> Viewed:
    """A baseline, TIE-KD with two seeds and a teacher with a hostile name, and a baseline on another data set."""
    place = tmp_path_factory.mktemp("viewed")
    base = tiny | {"teacher": tiny["teacher"] | {"name": EVIL}, "optim": {"epochs": 1, "batch_size": 4}}
    ground_truth = {"loss": {"name": "si", "target": "ground_truth"}}
    indoor = {
        "dataset": "synthetic-indoor",
        "train_frames": 4,
        "test_frames": 2,
        "frame_size": [48, 64],
        "train_crop": [48, 64],
    }
    documents = {
        "baseline": base | ground_truth,
        "tie-kd": base | {"loss": {"name": "tie_kd"}},
        "seed 1": base | {"loss": {"name": "tie_kd"}, "seed": 1},
        "indoor": base | ground_truth | {"data": indoor, "teacher": None},
    }
    runs = {}
    for name, document in documents.items():
        outcome = tiekd("run", as_yaml(place / "run.yaml", document), "--store", place / "store", "--json")
        assert outcome.code == 0, outcome.err
        runs[name] = outcome.out.partition('"run_id": "')[2][:16]
    outcome = tiekd("view", place / "store", "--out", place / "viewer")
    assert outcome.code == 0, outcome.err
    return Viewed(place / "store", place / "viewer", runs)


@pytest.fixture(scope="session")
def tab(chromium: Any, viewed: Viewed) -> Iterator[Page]:
    """One tab for all tests, since opening a tab takes longer than most of them."""
    page = Page(chromium, (viewed.folder / "index.html").as_uri())
    yield page
    page.tab.close()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """The viewer, freshly opened as a file; it must not log errors to the console."""
    tab.errors.clear()
    tab.open("")
    yield tab
    assert tab.errors == []
