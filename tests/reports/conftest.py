import shutil
from pathlib import Path

import pytest
from support.made_store import CELLS, LOST, MISSING, fill

from reports.loading.collect import StoreFrames, collect
from reports.tables.table import Table, build_tables
from tiekd.store.run_store import RunStore


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
