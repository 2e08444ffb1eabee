import random
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tiekd.config import AugmentConfig
from tiekd.data.dataset import DepthDataset, EpochSampler, shard
from tiekd.data.frame_source import Box, Frame, TrainRegion
from tiekd.data.image_io import StoredDepth
from tiekd.data.teacher_maps import MapWriter, TeacherMaps
from tiekd.data.transforms import TrainTransform, normalize_image
from tiekd.errors import UserError

SIZE = (32, 48)


class MadeFrames:
    """A few frames whose depth encodes frame, row and column."""

    n_without_ground_truth = 0

    def __init__(self, n_frames: int = 6, train_region: TrainRegion | None = None):
        self.keys = [f"scene/{index:04d}" for index in range(n_frames)]
        self.train_region = train_region

    def __len__(self) -> int:
        return len(self.keys)

    def load(self, index: int) -> Frame:
        rows, columns = np.indices(SIZE)
        image = np.stack([rows, columns, np.full(SIZE, index)], axis=-1).astype(np.uint8)
        depth = (index + rows / 100 + columns / 10000 + 1).astype(np.float32)
        return Frame(image, StoredDepth(depth), SIZE, (0, 0))


@pytest.fixture
def maps(tmp_path) -> TeacherMaps:
    with MapWriter(tmp_path, max_depth=80.0, made_by={}) as writer:
        for index, key in enumerate(MadeFrames().keys):
            writer.write(key, np.full(SIZE, index + 1, np.float32))
    return TeacherMaps(tmp_path)


def training(seed: int = 0, maps: TeacherMaps | None = None, source: MadeFrames | None = None) -> DepthDataset:
    transform = TrainTransform(AugmentConfig(rotate_degrees=10.0), (16, 24))
    return DepthDataset(source or MadeFrames(), maps, transform, seed)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_an_evaluated_frame_is_whole_and_unchanged(maps):
    item = DepthDataset(MadeFrames(), maps)[4]
    frame = MadeFrames().load(4)
    assert {name: (value.dtype, tuple(value.shape)) for name, value in item.items()} == {
        "image": (torch.float32, (3, *SIZE)),
        "depth_gt": (torch.float32, (1, *SIZE)),
        "depth_teacher": (torch.float32, (1, *SIZE)),
        "index": (torch.int64, ()),
    }
    assert torch.equal(item["image"], normalize_image(frame.image))
    assert torch.equal(item["depth_gt"][0], torch.tensor(frame.depth_gt))
    torch.testing.assert_close(item["depth_teacher"], torch.full((1, *SIZE), 5.0), atol=1e-3, rtol=0)
    assert item["index"] == 4


def test_without_maps_there_is_no_teacher_depth():
    item = training()[(0, 1)]
    assert item.keys() == {"image", "depth_gt", "index"}
    assert item["image"].shape == (3, 16, 24)
    assert item["depth_gt"].shape == (1, 16, 24)


def test_augmentation_depends_on_seed_epoch_and_index_only(maps):
    first = training(maps=maps)[(2, 3)]
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    random.seed(99)
    again = training(maps=maps)
    again[(2, 5)]
    assert same(first, again[(2, 3)])
    others = [training(seed=1)[(2, 3)], training()[(3, 3)], training()[(2, 4)]]
    assert not any(torch.equal(first["image"], other["image"]) for other in others)


def test_augmentation_does_not_use_the_global_generator():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    training()[(1, 1)]
    assert torch.equal(before, torch.get_rng_state())


def test_loader_processes_give_the_same_items_in_every_epoch(maps):
    dataset = training(maps=maps)

    def epochs(**options) -> list[dict]:
        sampler = EpochSampler(len(dataset), batch_size=4, seed=3)
        loader = DataLoader(dataset, batch_sampler=sampler, **options)
        batches = []
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            batches += list(loader)
        return batches

    alone = epochs()
    shared = epochs(num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    assert len(alone) == 4
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))
    assert not torch.equal(alone[0]["image"], alone[2]["image"])


def test_the_border_is_removed_for_training_only():
    border = Box(8, 10, 16, 24)
    source = MadeFrames(train_region=TrainRegion(SIZE, border))
    still = AugmentConfig(rotate_p=0, flip_p=0, colour_p=0)
    item = DepthDataset(source, None, TrainTransform(still, (16, 24)))[(0, 2)]
    assert torch.equal(item["depth_gt"][0], torch.tensor(border.crop(source.load(2).depth_gt)))
    assert torch.equal(item["image"], normalize_image(border.crop(source.load(2).image)))
    assert DepthDataset(source)[2]["image"].shape == (3, *SIZE)


def test_a_crop_that_does_not_fit_is_refused():
    with pytest.raises(
        UserError, match=r"data.train_crop 64x24 exceeds the part of frame scene/0000 that training uses: 32x48 px"
    ):
        DepthDataset(MadeFrames(), None, TrainTransform(AugmentConfig(), (64, 24)))[0]


def indices(sampler: EpochSampler) -> list[list[int]]:
    return [[index for _, index in batch] for batch in sampler]


def test_each_epoch_visits_every_frame_once_in_a_new_order():
    sampler = EpochSampler(10, batch_size=4, seed=5)
    first = indices(sampler)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert len(sampler) == sampler.steps_per_epoch == 3
    assert sorted(chain(*first)) == list(range(10))
    assert first == indices(EpochSampler(10, batch_size=4, seed=5))
    sampler.set_epoch(1)
    assert {epoch for batch in sampler for epoch, _ in batch} == {1}
    assert sorted(chain(*indices(sampler))) == list(range(10))
    assert indices(sampler) != first
    assert indices(EpochSampler(10, batch_size=4, seed=6)) != first


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batches_of_one_process(world_size):
    alone = indices(EpochSampler(10, batch_size=4, seed=5))
    ranks = [indices(EpochSampler(10, 4, 5, rank, world_size)) for rank in range(world_size)]
    together = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
    # Three ranks cannot share a last batch of two, so its frames join the batch before it.
    assert together == (alone if world_size == 2 else [alone[0], alone[1] + alone[2]])
    assert all(part for rank in ranks for part in rank)


@pytest.mark.parametrize(
    ("n_frames", "batch_size", "sizes"), [(3, 2, [3]), (9, 4, [4, 5]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 1, 1])]
)
def test_a_rest_of_one_frame_joins_the_last_batch(n_frames, batch_size, sizes):
    sampler = EpochSampler(n_frames, batch_size, seed=0)
    assert [len(batch) for batch in indices(sampler)] == sizes
    assert len(sampler) == len(sizes)
    assert sorted(chain(*indices(sampler))) == list(range(n_frames))


def test_ranks_without_a_frame_are_refused():
    with pytest.raises(ValueError, match=r"got batch_size 2 and 10 frames"):
        EpochSampler(10, batch_size=2, seed=0, rank=0, world_size=4)
    with pytest.raises(ValueError, match=r"got rank 2 of 2"):
        EpochSampler(10, batch_size=2, seed=0, rank=2, world_size=2)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_evaluation_repeats_no_frame(world_size):
    shards = [shard(7, rank, world_size) for rank in range(world_size)]
    assert sorted(chain(*shards)) == list(range(7))
