"""One real viewer of four real runs, and a real Chromium to open it in."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.viewer_page import EVIL, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Viewed:
    """A store, what the viewer shows of it, and its runs' ids by what they are."""

    store: Path
    folder: Path
    runs: dict[str, str]


@pytest.fixture(scope="session")
def viewed(tmp_path_factory: pytest.TempPathFactory, tiekd: Callable, tiny: dict[str, Any], as_yaml: Callable) -> Viewed:
    """A Baseline, TIE-KD with two seeds under a teacher of an evil name, and a Baseline on another data set."""
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
def chromium() -> Iterator[Any]:
    """A headless Chromium; tests that need one are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'tiekd[test]'")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs Chromium: apt install chromium")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, viewed: Viewed) -> Iterator[Page]:
    """The viewer, opened as a file; it must say nothing on the console."""
    page = Page(chromium, f"{(viewed.folder / 'index.html').as_uri()}")
    yield page
    page.tab.close()
    assert page.errors == []
