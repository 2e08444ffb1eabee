"""Frames as tensors, and the order in which they come.

What is drawn for a frame depends on (seed, epoch, index) alone: not on the number of loader processes or ranks, nor on whether
the training was interrupted.
"""

from collections.abc import Collection, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from tiekd.config import AugmentConfig
from tiekd.data.frame_source import Frame, FrameSource, check_train_crop
from tiekd.data.image_io import Size, StoredDepth
from tiekd.data.teacher_maps import TeacherMaps
from tiekd.data.transforms import TrainTransform, normalise

Draw = tuple[int, int]  # epoch, index of a frame


class DepthDataset(Dataset):
    """The frames of a source, with the teacher's maps where given; augmented where `augment` is given.

    Its items are addressed by (epoch, index), as `EpochSampler` yields them: so the epoch reaches loader processes that
    outlive it. A plain index is epoch 0.
    """

    def __init__(
        self,
        source: FrameSource,
        maps: TeacherMaps | None = None,
        augment: AugmentConfig | None = None,
        train_crop: Size | None = None,
        seed: int = 0,
        quirks: Collection[str] = (),
    ):
        if (augment is None) != (train_crop is None):
            raise ValueError("augment and train_crop are given together (training) or not at all (evaluation)")
        self.source, self.maps, self.train_crop, self.seed = source, maps, train_crop, seed
        self._transform = TrainTransform(augment, train_crop, quirks) if augment else None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: Draw | int) -> dict[str, Tensor]:
        """image [3, h, w], normalised; depth_gt and, with maps, depth_teacher [1, h, w] m; index, int64."""
        epoch, index = draw if isinstance(draw, tuple) else (0, draw)
        frame = self.source.load(index)
        depths = {"depth_gt": frame.depth}
        if self.maps is not None:
            depths["depth_teacher"] = self.maps.stored(self.source.keys[index], frame.size)
        if self._transform is None:
            image, tensors = normalise(frame.image), {name: _tensor(depth) for name, depth in depths.items()}
        else:
            image, tensors = self._augmented(frame, depths, epoch, index)
        return {"image": image, **tensors, "index": torch.tensor(index)}

    def _augmented(
        self, frame: Frame, depths: dict[str, StoredDepth], epoch: int, index: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        border = self.source.train_border
        check_train_crop(self.train_crop, frame.size, border, self.source.keys[index])
        image = frame.image
        if border is not None:
            image = border.of(image)
            depths = {name: StoredDepth(border.of(values), unit) for name, (values, unit) in depths.items()}
        generator = torch.Generator()  # its own, so that no other draw changes
        generator.manual_seed(derive_seed(self.seed, epoch, index))
        return self._transform(image, depths, generator)


def _tensor(depth: StoredDepth) -> Tensor:
    return torch.from_numpy(depth.metres())[None]


class EpochSampler(Sampler[list[Draw]]):
    """The batches of one rank in one epoch, for a `DataLoader`'s `batch_sampler`.

    An epoch's order is a function of (seed, epoch). It is cut into batches of `batch_size` over all ranks, the last may be
    smaller, and each rank takes its own part of every batch: so all numbers of ranks train on the same batches. A last batch
    with fewer frames than ranks is left out, since a rank without a frame could not take part in the step.
    """

    def __init__(self, n_frames: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0 .. world_size - 1, got rank {rank} of {world_size}")
        if min(n_frames, batch_size) < world_size:
            raise ValueError(
                f"each of {world_size} workers needs a frame per step, got batch_size {batch_size} and {n_frames} frames"
            )
        self.n_frames, self.batch_size, self.seed, self.rank, self.world_size = n_frames, batch_size, seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self.n_frames, self.batch_size)
        return full + (rest >= self.world_size)

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_frames)
        for step in range(self.steps_per_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in np.array_split(batch, self.world_size)[self.rank]]


def shard(n_frames: int, rank: int, world_size: int) -> list[int]:
    """The frames that one rank evaluates: every frame goes to one rank, none is repeated to even them out."""
    return list(range(rank, n_frames, world_size))


def derive_seed(*entropy: int) -> int:
    """A 64-bit seed for e.g. (seed, epoch, index)."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
