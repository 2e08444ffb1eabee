"""Frames as tensors, and the order in which training reads them.

The random numbers for a frame depend on (seed, epoch, index) only, and not on the number of loader processes or ranks, nor on
interruptions of the training.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from tiekd.data.frame_source import Frame, FrameSource, check_train_crop
from tiekd.data.image_io import StoredDepth
from tiekd.data.teacher_maps import MapSource
from tiekd.data.transforms import TrainTransform, normalize_image

EpochIndex = tuple[int, int]  # epoch, index of a frame


class DepthDataset(Dataset):
    """The frames of a source, with the teacher's maps if given; augmented if a transform is given.

    An item is addressed by (epoch, index), as `EpochSampler` yields it, so that persistent loader processes know the epoch. A
    plain index means epoch 0.
    """

    def __init__(
        self,
        source: FrameSource,
        maps: MapSource | None = None,
        transform: TrainTransform | None = None,
        seed: int = 0,
    ):
        self.source, self.maps, self.transform, self.seed = source, maps, transform, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: EpochIndex | int) -> dict[str, Tensor]:
        """Load a frame: image [3, h, w], normalized; depth_gt and, with maps, depth_teacher [1, h, w] m; index, int64."""
        epoch, index = item if isinstance(item, tuple) else (0, item)
        frame = self.source.load(index)
        depths = {"depth_gt": frame.depth}
        if self.maps is not None:
            depths["depth_teacher"] = self.maps.load_stored(self.source.keys[index], frame.size)
        if self.transform is None:
            image, tensors = normalize_image(frame.image), {name: _tensor(depth) for name, depth in depths.items()}
        else:
            image, tensors = self._augment(self.transform, frame, depths, (epoch, index))
        return {"image": image, **tensors, "index": torch.tensor(index)}

    def _augment(
        self, transform: TrainTransform, frame: Frame, depths: dict[str, StoredDepth], item: EpochIndex
    ) -> tuple[Tensor, dict[str, Tensor]]:
        epoch, index = item
        part = check_train_crop(transform.crop, frame.size, self.source.train_region, self.source.keys[index])
        image = part.crop(frame.image)
        depths = {name: StoredDepth(part.crop(values), unit) for name, (values, unit) in depths.items()}
        generator = torch.Generator()  # not the global one, so that other random numbers do not change
        generator.manual_seed(derive_seed(self.seed, epoch, index))
        return transform(image, depths, generator)


def _tensor(depth: StoredDepth) -> Tensor:
    return torch.from_numpy(depth.to_meters())[None]


class EpochSampler(Sampler[list[EpochIndex]]):
    """The batches of one rank in one epoch, for the `batch_sampler` of a `DataLoader`.

    The order is a function of (seed, epoch). It is split into batches of `batch_size` frames over all ranks, and each rank
    takes its part of every batch, so that the batches do not depend on the number of ranks. The last batch may be smaller. A
    rest of one frame joins the batch before it, because some batch norms need two; so does a rest of fewer frames than ranks,
    because every rank needs a frame to take part in a step.
    """

    def __init__(self, n_frames: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0 .. world_size - 1, got rank {rank} of {world_size}")
        if min(n_frames, batch_size) < world_size:
            raise ValueError(
                f"each of {world_size} workers needs a frame per step, got batch_size {batch_size} and {n_frames} frames"
            )
        self.n_frames, self.batch_size, self.seed, self.rank, self.world_size = n_frames, batch_size, seed, rank, world_size
        self.epoch = self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch, and how many of its steps are left out because they have been computed."""
        self.epoch, self.skip = epoch, skip

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self.n_frames, self.batch_size)
        return full + (rest >= max(2, self.world_size) or full == 0)

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[list[EpochIndex]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_frames)
        starts = [step * self.batch_size for step in range(1, self.steps_per_epoch)]
        for batch in np.split(order, starts)[self.skip :]:
            yield [(self.epoch, int(index)) for index in np.array_split(batch, self.world_size)[self.rank]]


def shard(n_frames: int, rank: int, world_size: int) -> list[int]:
    """Return the frames that a rank evaluates. Every frame belongs to one rank; none is repeated as padding."""
    return list(range(rank, n_frames, world_size))


def derive_seed(*entropy: int) -> int:
    """Derive a 64-bit seed from integers such as (seed, epoch, index)."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
