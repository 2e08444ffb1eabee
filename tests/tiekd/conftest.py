"""A run of about a second on rendered rooms, and a teacher that was trained and exported once."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tiekd.config import RunConfig, build, with_values
from tiekd.run import carry_out, run_id_of
from tiekd.runtime import LocalRuntime
from tiekd.store import RunStore
from tiekd.teachers.export import export_maps, trained_weights

ORACLE = Path(__file__).parents[2] / "../shared/oracle"

TINY = {
    "data": {
        "dataset": "synthetic-indoor",
        "train_frames": 8,
        "test_frames": 4,
        "frame_size": [64, 96],
        "train_crop": [48, 64],
    },
    "student": {"name": "tiny"},
    "bins": {"n_bins": 16},
    "optim": {"epochs": 2, "batch_size": 2, "lr": 1e-2},
}
# Whole frames, unaltered: so few steps can then learn them by heart.
LEARNING = {
    "data.train_crop": [64, 96],
    "augment": {"rotate_p": 0, "flip_p": 0, "colour_p": 0},
    "optim": {"epochs": 20, "batch_size": 2, "lr": 1e-2},
    "evaluation.every": 20,
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def learning() -> Mapping:
    """Overrides of the tiny config with which a student learns its training frames in seconds."""
    return LEARNING


@pytest.fixture(scope="session")
def carried_out():
    """Carry a run out in this process; its record and its status."""

    def carry(config: RunConfig, runtime=LocalRuntime):
        store = RunStore(config.execution.store)
        status = carry_out(config, store, lambda record: runtime(config.execution, record))
        return store.run(run_id_of(config)), status

    return carry


@pytest.fixture(scope="session")
def teacher(tmp_path_factory, carried_out) -> SimpleNamespace:
    """A trained teacher: its config, its record, the folder of its maps and what the export told of them."""
    folder = tmp_path_factory.mktemp("teacher")
    ground_truth = {"loss": {"name": "si", "target": "ground_truth"}, "execution.store": str(folder / "store")}
    config = build(with_values(TINY, {**LEARNING, **ground_truth}))
    record, _ = carried_out(config)
    exported = export_maps(config, trained_weights(config), folder / "maps", "embedded")
    return SimpleNamespace(config=config, record=record, maps=folder / "maps", exported=exported)


@pytest.fixture(scope="session")
def tiny_in(teacher):
    """The tiny config in a store of choice, with overrides: TIE-KD from the exported teacher."""
    source = {"teacher": {"name": "embedded", "maps": str(teacher.maps)}}
    return lambda store, overrides: build(with_values(TINY, {**source, "execution.store": str(store), **overrides}))


@pytest.fixture
def tiny(tiny_in, tmp_path):
    """The tiny config with overrides, its store in the test's folder."""
    return lambda overrides=None: tiny_in(tmp_path / "store", overrides or {})


@pytest.fixture(scope="session")
def oracle():
    """What the released code computed, by the name of its JSON page."""

    def load(name: str) -> dict:
        path = ORACLE / f"{name}.json"
        if not path.is_file():
            pytest.skip("the numbers of the released code are not beside this checkout")
        return json.loads(path.read_text())

    load.folder = ORACLE
    return load
