"""A run of about a second on rendered rooms, and a teacher that was trained and exported once."""

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.paths import SHARED
from torch import Tensor

from tiekd.config import RunConfig, build
from tiekd.config.documents import with_values
from tiekd.data import Frame
from tiekd.data.image_io import StoredDepth
from tiekd.deploy.export_maps import NetworkTeacher, export_maps, trained_weights
from tiekd.distill.preflight import ready_record
from tiekd.distill.run import execute
from tiekd.distill.runtime import LocalRuntime
from tiekd.store.run_store import RunStore

ORACLE = SHARED / "oracle"

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
def execute_run():
    """Carry a run out in this process; its record and its status."""

    def carry(config: RunConfig, runtime=LocalRuntime):
        record = ready_record(config, RunStore(config.execution.store))
        return record, execute(config, record, lambda: runtime(config.execution, record))

    return carry


@pytest.fixture(scope="session")
def teacher(tmp_path_factory, execute_run) -> SimpleNamespace:
    """A trained teacher: its config, its record, the folder of its maps and what the export told of them."""
    folder = tmp_path_factory.mktemp("teacher")
    ground_truth = {"loss": {"name": "si", "target": "ground_truth"}, "execution.store": str(folder / "store")}
    config = build(with_values(TINY, {**LEARNING, **ground_truth}))
    record, _ = execute_run(config)
    maker = NetworkTeacher(trained_weights(config), config.evaluation.flip_tta, "cpu")
    exported = export_maps(config, maker, folder / "maps", "embedded")
    return SimpleNamespace(config=config, record=record, maps=folder / "maps", exported=exported)


@pytest.fixture(scope="session")
def tiny_in(teacher):
    """The tiny config in a store of choice, with overrides: TIE-KD from the exported teacher."""
    fixed = {"teacher": {"name": "embedded", "maps": str(teacher.maps)}, "execution.keep_checkpoint": True}
    return lambda store, overrides: build(with_values(TINY, {**fixed, "execution.store": str(store), **overrides}))


@pytest.fixture
def tiny(tiny_in, tmp_path):
    """The tiny config with overrides, its store in the test's folder."""
    return lambda overrides=None: tiny_in(tmp_path / "store", overrides or {})


@pytest.fixture(scope="session")
def frame_of() -> Callable[..., Frame]:
    """A black frame of some ground truth [H, W] m, of which it may show a part."""

    def make(depth: np.ndarray, frame_size=None, origin=(0, 0)) -> Frame:
        image = np.zeros((*depth.shape, 3), np.uint8)
        return Frame(image, StoredDepth(depth.astype(np.float32)), frame_size or depth.shape, origin)

    return make


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


@pytest.fixture(scope="session")
def oracle_weights():
    """The weights that the oracle's `weight_rule` makes from a state dict's names and shapes; integer tensors are zeros."""
    return lambda shapes: {name: _weight(name, shape) for name, shape in shapes.items()}


def _weight(name: str, shape: Sequence[int]) -> Tensor:
    if name.endswith(("num_batches_tracked", "relative_position_index")):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if len(shape) >= 2:
        values = normal.astype(np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
    elif name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(normal)
    elif name.endswith("weight"):
        values = 1 + 0.1 * normal
    else:
        values = 0.1 * normal
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@pytest.fixture(scope="session")
def oracle_image():
    """The oracle's input of a size: [1, 3, H, W], float32."""

    def make(height: int, width: int) -> Tensor:
        values = np.random.default_rng(7).standard_normal((1, 3, height, width)).astype(np.float32)
        return torch.from_numpy(values)

    return make
