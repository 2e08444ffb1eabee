"""What each loss, DPM, data set, student, teacher and evaluation protocol declares about itself.

Imports no PyTorch: code is named as 'module:name' and imported when it is first used (`pkgutil.resolve_name`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Head = Literal["dpm", "regression", "adaptive_bins"]


@dataclass(frozen=True, kw_only=True)
class LossSpec:
    """A loss: how to build it, and what it needs from a run."""

    label: str  # in tables
    build: str  # 'module:function', RunConfig -> dict[str, tiekd.losses.combine.WeightedTerm]
    reads: tuple[str, ...]  # the settings of `loss` that it reads; the others take no part in a run's identity
    method: str = "Res-KD"  # the row's method in tables when the target is the teacher
    head: Head = "regression"  # student.head unless the config states one
    needs_head: bool = False  # whether it can train no other head
    needs_dense_target: bool = False  # whether it is undefined on sparse ground truth
    frees_scale: bool = False  # whether a factor on the predicted depth costs nothing
    of_image: bool = False  # whether it compares the prediction with the image; then it is only one of `loss.parts`


@dataclass(frozen=True, kw_only=True)
class DPMSpec:
    """How the teacher's depth becomes a distribution over bins, the target of L_DPM."""

    label: str
    scores: str  # 'module:function', see `tiekd.bins.target_scores`
    reads: tuple[str, ...]  # which of sigma and temperature; the others take no part in a run's identity
    source: str


class License(NamedTuple):
    """The terms of a network that was trained on a data set."""

    name: str  # identifier of the Hugging Face hub
    text: str


class ReleasedMapNames(NamedTuple):
    """How the released code names a frame's teacher map: `prefix` and the parts of the image's path, joined by "_"."""

    prefix: str
    parts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set: where its frames come from, how they are evaluated, and what a config that names it leaves out."""

    label: str  # in tables
    layout: str | None  # 'module:NAME' of the tiekd.data.layouts.split_list.Layout of its files; None: a config describes them
    evaluation_size: tuple[int, int] | None  # height and width of an evaluated frame, px; None: data.frame_size
    license: License
    defaults: Mapping[str, Mapping[str, Any]]  # sections of a config
    rendered: bool = False  # whether its frames are rendered
    frames: str | None = None  # 'module:function', (DataConfig, Split) -> FrameSource; None: read from split lists
    agreement_first_row: int = 0  # first row of a frame that counts in the agreement with a teacher
    released_map_names: ReleasedMapNames | None = None  # None: the released code does not read it
    image_counts: Mapping[int, str] = field(default_factory=dict)  # how many images papers evaluate on, and which these are

    def count_note(self, n_images: int) -> str:
        """A line that tells that papers evaluate on another number of images; empty if they do not, or if none is known."""
        if not self.image_counts or n_images in self.image_counts:
            return ""
        known = " or ".join(f"{count} ({which})" for count, which in self.image_counts.items())
        return f"{n_images} images were evaluated; papers on {self.label} evaluate {known}; their numbers are not comparable"


@dataclass(frozen=True, kw_only=True)
class ReleasedCheckpoint:
    """How a checkpoint of the released code is recognized and read."""

    released_keys: str  # 'module:function', nn.Module -> tiekd.models.released_keys.ReleasedKeys
    has: tuple[str, ...]  # keys of its state dict
    lacks: tuple[str, ...] = ()  # keys that it does not have


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A network that can be trained: how to build it, and what a config that names it leaves out."""

    label: str  # backbone in tables
    build: str  # 'module:function', RunConfig -> nn.Module that maps images to a Prediction
    defaults: Mapping[str, Mapping[str, Any]]  # sections of a config
    released: ReleasedCheckpoint | None = None
    any_size: bool = True  # whether it can be exported for images of any size


@dataclass(frozen=True, kw_only=True)
class StudentSpec(NetworkSpec):
    """A student: by default a timm encoder with a decoder."""

    build: str = "tiekd.models.registry:build_depth_student"


@dataclass(frozen=True, kw_only=True)
class TeacherSpec(NetworkSpec):
    """A published teacher's architecture with its own recipe; `defaults` state its head and decoder widths."""

    title: str  # teacher in tables


@dataclass(frozen=True, kw_only=True)
class ProtocolSpec:
    """An evaluation protocol: the pixels inside a crop whose ground truth lies strictly between two depths.

    A prediction is first aligned to the ground truth of those pixels.
    """

    label: str
    crop: str  # 'module:function', size (height, width) in px -> top, bottom, left, right
    of_full_frame: bool = False  # whether the crop refers to the frame before it is cut to its canonical view
    min_depth: float | None = None  # m; None: the data's own range
    max_depth: float | None = None  # m
    alignment: str = "none"  # of ALIGNMENTS
