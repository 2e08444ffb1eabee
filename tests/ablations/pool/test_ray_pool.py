"""Commands whose work the processes of a cluster share: the same files as by one process, whatever is killed meanwhile."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ablations.pool.ray_pool import ray_pool
from tiekd.config import ExecutionConfig
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.teacher_maps.blocks import BLOCK_FRAMES
from tiekd.deploy.predict_files import BLOCK_FILES
from tiekd.errors import ClusterError, UserError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread():
    """As in the processes of the cluster: other numbers of threads sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- commands --------------------------------------------------------------------------------------------------------------


def test_an_export_that_was_killed_on_a_cluster_ends_there_like_one_in_this_process(
    driver, tiekd, tiny, network, as_yaml, in_folder, shared_cluster
):
    many = tiny["data"] | {"train_frames": 2 * BLOCK_FRAMES}
    words = ("teacher", "export", as_yaml(in_folder / "data.yaml", {"data": many}), "--weights", network)
    alone = tiekd(*words, "--out", "alone")
    assert alone.code == 0, alone.err
    with driver(*words, "--out", "shared", "--address", shared_cluster) as killed:
        killed.until(lambda: list(Path("shared").glob("parts/*.json")))
        killed.kill()
    assert not Path("shared/manifest.json").exists()
    shared = tiekd(*words, "--out", "shared", "--address", shared_cluster)
    assert shared.code == 0, shared.err
    assert TeacherMaps("shared").manifest == TeacherMaps("alone").manifest


def test_packs_made_on_a_cluster_have_the_same_bytes(tiekd, tiny, as_yaml, tree, in_folder, shared_cluster):
    config = as_yaml(in_folder / "run.yaml", tiny)
    for words in (["alone"], ["shared", "--address", shared_cluster]):
        outcome = tiekd("data", "pack", config, "--out", *words)
        assert outcome.code == 0, outcome.err
    assert tree(in_folder / "shared") == tree(in_folder / "alone")


def test_predictions_that_were_killed_on_a_cluster_end_there_with_the_bytes_of_one_process(
    driver, tiekd, network, tree, in_folder, shared_cluster
):
    Path("photos").mkdir()
    for number in range(2 * BLOCK_FILES):
        pixels = np.random.default_rng(number).integers(0, 256, (64 + number % 3, 96, 3), np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    Path("photos/broken.png").write_bytes(b"no image")
    words = ("predict", network, "photos", "--out")
    alone = tiekd(*words, "alone")
    with driver(*words, "shared", "--address", shared_cluster) as killed:
        killed.until(lambda: list(Path("shared").glob("parts/*.json")))
        killed.kill()
    assert not Path("shared/predictions.json").exists()
    shared = tiekd(*words, "shared", "--address", shared_cluster)
    assert (alone.code, shared.code) == (1, 1)
    assert shared.err == alone.err
    assert "broken.png" in alone.err
    assert len(tree(in_folder / "alone")) == 2 * BLOCK_FILES * 2 + 1
    assert tree(in_folder / "shared") == tree(in_folder / "alone")


def test_an_address_where_nothing_answers_is_refused_before_anything_is_written(mistake, network, in_folder):
    (in_folder / "data.yaml").write_text("data: {dataset: synthetic-outdoor, frame_size: [64, 96], train_crop: [48, 64]}\n")
    line = mistake("teacher", "export", "data.yaml", "--weights", network, "--out", "maps", "--address", "127.0.0.1:1")
    assert line.startswith("tiekd: --address 127.0.0.1:1: cannot connect to a Ray cluster there")


# -- processes -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(shared_cluster, tmp_path_factory):
    with ray_pool(shared_cluster, ExecutionConfig(), tmp_path_factory.mktemp("out"), gpu=True, configs=[], files=[]) as pool:
        yield pool


def test_results_are_in_the_order_of_the_items(pool):
    assert list(pool(lambda: lambda item: [item, -item], range(1, 4))) == [1, -1, 2, -2, 3, -3]
    assert list(pool(lambda: 1 / 0, [])) == []


def kill_once(marker: Path):
    """A function whose process is killed the first time. Closures are sent by value: processes cannot import this module."""

    def work(item: int) -> list[int]:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [item]

    return lambda: work


def test_the_item_of_a_process_that_was_killed_is_done_again(pool, tmp_path):
    assert list(pool(kill_once(tmp_path / "killed"), range(3))) == [0, 1, 2]


def test_an_item_that_kills_each_process_ends_the_command(pool):
    with pytest.raises(ClusterError, match="a process of the pool was lost 3 times"):
        list(pool(lambda: lambda item: os.kill(os.getpid(), signal.SIGKILL), [0]))


def test_an_error_of_a_process_is_raised_as_it_is(pool):
    def refuse(item: int) -> list[int]:
        raise UserError(f"item {item}: refused")

    with pytest.raises(UserError, match=r"^item 0: refused$"):
        list(pool(lambda: refuse, [0]))
