import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.made_store import CELLS, LOST, MISSING, fill

from reports.loading.collect import StoreFrames, collect
from reports.tables.table import Table, build_tables
from tiekd.store.run_store import RunStore

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """An empty store."""
    return RunStore(tmp_path / "store")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """The store of the made study, for reading."""
    store = RunStore(tmp_path_factory.mktemp("made") / "store")
    fill(store, CELLS, 2, {"name": "demo", "title": "Demo study"}, LOST, MISSING)
    return store


@pytest.fixture
def demo(made: RunStore, store: RunStore) -> RunStore:
    """A copy of it, for changing."""
    shutil.copytree(made.uri, store.uri)
    return store


@pytest.fixture(scope="session")
def collected(made: RunStore) -> StoreFrames:
    return collect(made)


@pytest.fixture(scope="session")
def table(collected: StoreFrames) -> Table:
    (only,) = build_tables(collected)
    return only


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium; tests that need it are skipped if it is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'tiekd[test]'")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs Chromium: apt install chromium")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
