"""The sections of a run config: each setting with its range, its unit and one sentence. Sizes are (height, width) in pixels."""

import re
from collections.abc import Collection
from functools import cache
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tiekd.config.cpus import usable_cpus
from tiekd.config.documents import TEACHER_SOURCES
from tiekd.config.gpus import usable_gpus
from tiekd.config.specs import (
    DATASETS,
    NETWORKS,
    PROTOCOLS,
    TEACHERS,
    DatasetSpec,
    Head,
    ProtocolSpec,
    protocol_of,
)
from tiekd.config.specs.protocols import PATTERN
from tiekd.errors import unknown

_Pixels = Annotated[int, Field(ge=16, le=16_384)]
Size = tuple[_Pixels, _Pixels]
Text = Annotated[str, Field(min_length=1, max_length=4096)]  # of names and paths
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Probability = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Kernel = Literal["torch", "triton"]
_Share = Annotated[float, Field(ge=0, le=1)]
_Cpus = Annotated[int, Field(ge=1, le=4096)]
_Processes = Annotated[int, Field(ge=0, le=1024)]
# Beside the training process; more would only use memory. Nobody has measured on a GPU how many it takes to feed one.
MAX_AUTO_DATA_WORKERS = 8


class OneOf:
    """A name among `choices`, which may grow: an unknown name is refused with the nearest ones."""

    def __init__(self, setting: str, choices: Collection[str]):
        self._setting, self._choices = setting, choices

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": sorted(self._choices)}

    def _check(self, name: str) -> str:
        if name not in self._choices:
            raise ValueError(unknown(self._setting, name, self._choices))
        return name


class ProtocolName:
    """NAME[@CAPm][+ALIGNMENT]: an evaluation protocol, its cap, and what is aligned; see tiekd/config/specs/protocols.py."""

    def __init__(self, setting: str):
        self._setting = setting

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "anyOf": [{"enum": sorted(PROTOCOLS)}, {"pattern": PATTERN}]}

    def _check(self, name: str) -> str:
        protocol_of(name, self._setting)
        return name


class AutoOr:
    """A number, or `auto`: anything else is refused with what is valid."""

    def __init__(self, valid: str):
        self._valid = valid

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        message = {"custom_error_type": "auto_or", "custom_error_message": f"expected auto or {self._valid}"}
        return cast(CoreSchema, {**handler(source), **message})


class Section(BaseModel):
    """Settings that are checked when they are built and never changed; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, document: Any) -> Any:
        """Refuse true and false as numbers, which they are for Python, and NUL, which no file name can have."""
        for name, value in document.items() if isinstance(document, dict) else ():
            problem = ""
            if isinstance(value, str):
                problem = "a text cannot contain the character NUL" if "\0" in value else ""
            elif any(v is True or v is False for v in (value if isinstance(value, list | tuple) else (value,))):
                wrong = name in cls.model_fields and _is_number(cls, name)
                problem = "input should be a number, not true or false" if wrong else ""
            if problem:
                raise PydanticCustomError("plain_value", "{problem}", {"problem": problem, "field": name, "input": value})
        return document


@cache
def _is_number(model: type[BaseModel], field: str) -> bool:
    """Whether a field takes numbers, or several of them, but not true and false."""
    kinds, found = [model.model_fields[field].annotation], []
    while kinds:
        found.append(kind := kinds.pop())
        kinds += get_args(kind)
    return any(kind in (int, float) for kind in found) and not any(kind is bool for kind in found)


class FolderConfig(Section):
    """How to find the frames of any RGB-D folder. Patterns are relative to data.root.

    In a pattern, `*` matches within a name, `**` any number of folders, and `{split}` the folder of a split.
    """

    name: Text = Field("folder", description="the data set's name in tables")
    images: Text = Field(description="pattern of the images, such as '{split}/rgb/*.png'")
    depths: Text | None = Field(None, description="pattern of the depth maps; default: no frame has ground truth")
    masks: Text | None = Field(None, description="pattern of masks, not 0 where the depth is valid")
    pair_by: Literal["name", "folder", "time"] = Field(
        "name",
        description="an image's depth map has the same wildcards (name), all but the last one (folder), or the nearest time in "
        "the last one (time)",
    )
    time_tolerance: float = Field(0.02, gt=0, description="largest difference in s; pair_by time only")
    depth_scale: float = Field(1000.0, gt=0, description="stored value at 1 m")
    invalid: tuple[float, ...] = Field((), description="stored values without depth, beside 0, negative and not finite ones")
    rotate_bits: int = Field(0, ge=0, le=15, description="rotate 16-bit values right by so many bits (SUN RGB-D: 3)")
    array: Text | None = Field(None, description="name of the array in .npz and HDF5 files; default: the only one")
    splits: tuple[Text, Text] = Field(("train", "test"), description="what {split} stands for: training and test folder")
    test_groups: tuple[Text, ...] = Field((), description="without {split}: groups that are tested on; may have wildcards")
    test_share: Probability = Field(0.2, description="without {split} and test_groups: share of the frames that are tested on")
    split_by: Literal["group", "time"] = Field(
        "group", description="test_share: random groups, or the last frames of each folder"
    )
    split_gap: Probability = Field(0.0, description="split_by time: share of the frames between both splits, which is left out")
    split_seed: int = Field(0, ge=0, le=2**31 - 1, description="split_by group: seed of the choice")
    group: Text | None = Field(None, description="regular expression of the group in an image's path; default: its folder")
    group_frames: int | None = Field(None, ge=1, description="divide each group into blocks of so many frames in order")

    @field_validator("group")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"data.folder.group: not a regular expression: {error}, got {value!r}") from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "FolderConfig":
        patterns = [pattern for pattern in (self.images, self.depths, self.masks) if pattern is not None]
        if len({"{split}" in pattern for pattern in patterns}) > 1:
            raise ValueError(f"data.folder: either all patterns contain {{split}} or none, got {', '.join(patterns)}")
        if self.masks and not self.depths:
            raise ValueError("data.folder.masks: needs data.folder.depths")
        if self.test_share + self.split_gap >= 1:
            raise ValueError(
                f"data.folder: test_share and split_gap leave nothing to train on, got {self.test_share} and {self.split_gap}"
            )
        return self


class DataConfig(Section):
    """The frames, and the depth range that is valid."""

    dataset: Annotated[str, OneOf("data.dataset", DATASETS)] = Field(description="name of a data set (`tiekd list datasets`)")
    root: Text | None = Field(None, description="folder of the data set; its files, not its path, identify a run")
    train_split: Text | None = Field(None, description="list of training frames, relative to root")
    test_split: Text | None = Field(None, description="list of test frames, relative to root")
    train_frames: int | None = Field(None, ge=1, le=1_000_000, description="use only the first N training frames")
    test_frames: int | None = Field(None, ge=1, le=1_000_000, description="use only the first N test frames")
    folder: FolderConfig | None = Field(None, description="how to find the frames; data set `folder` only")
    frame_size: Size | None = Field(
        None, description="size of a rendered frame, px, or to which images and depth maps of a folder are brought"
    )
    labelled: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="train on the ground truth of so many frames (5), or of such a share (0.05), group by group; default: all; "
        "losses on a teacher use all frames",
    )
    label_seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of the choice of labelled frames")
    scene_seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of the rendered scenes; rendered data only")
    min_depth: float = Field(1e-3, gt=0, description="m; smaller depths are invalid")
    max_depth: float = Field(80.0, gt=0, description="m; larger depths are invalid, and predictions are clamped to it")
    train_crop: Size = Field((352, 704), description="size of a random training crop, px")

    @property
    def depth_range(self) -> tuple[float, float]:
        """Minimum and maximum depth, m."""
        return self.min_depth, self.max_depth

    @property
    def evaluation_size(self) -> Size:
        """Size of an evaluated frame, px: KITTI's kb-crop, NYU's whole frame."""
        size = self.spec.evaluation_size or self.frame_size
        assert size is not None, f"{self.dataset} has neither an evaluation size nor data.frame_size"
        return size

    @property
    def spec(self) -> DatasetSpec:
        """The entry of its data set."""
        return DATASETS[self.dataset]

    @property
    def rendered(self) -> bool:
        """Whether its frames are rendered, at any size."""
        return self.spec.rendered

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.folder.name if self.folder else self.dataset

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if self.min_depth >= self.max_depth:
            raise ValueError(f"data.min_depth must be below data.max_depth, got {self.min_depth} and {self.max_depth}")
        if self.frame_size and self.spec.evaluation_size:
            raise ValueError(f"data.frame_size: only rendered data and folders have a free frame size, not {self.dataset}")
        if bool(self.folder) != (self.dataset == "folder"):
            problem = "data set 'folder' needs this section" if self.folder is None else f"{self.dataset} does not read it"
            raise ValueError(f"data.folder: {problem}; `tiekd data check ROOT` prints one")
        if self.frame_size is None and self.spec.evaluation_size is None:
            raise ValueError(f"data.frame_size: needed for data set '{self.dataset}', such as [480, 640]")
        if self.frame_size and any(c > f for c, f in zip(self.train_crop, self.frame_size, strict=True)):
            raise ValueError(f"data.train_crop {self.train_crop} exceeds data.frame_size {self.frame_size}")
        return self


class TeacherConfig(Section):
    """The teacher: a folder of its depth maps, or the model from which a launch makes them."""

    name: Text = Field(description="its name in tables")
    maps: Text | None = Field(
        None, description="folder of 16-bit depth maps with manifest.json; the maps, not their path, identify a run"
    )
    run: dict[str, Any] | None = Field(
        None,
        description="a network that is trained first: a run config's file, or what it changes in this document "
        "(its teacher, loss and seed are not inherited)",
        json_schema_extra={"anyOf": [{"type": "object"}, {"type": "string"}, {"type": "null"}]},
    )
    weights: Text | None = Field(None, description="weights of a trained or converted network; their content identifies a run")
    hf: Text | None = Field(
        None, pattern="^[^@]+@[^@]+$", description="NAME@REVISION of a metric depth model of the Hugging Face hub"
    )
    metric: bool = Field(False, description="with hf: it predicts metres, although neither its config nor its family says so")
    flip_tta: bool = Field(
        True, description="average with the depth of the mirrored image; for maps that are made from run or weights"
    )
    align: Literal["none", "median", "affine_depth", "affine_disparity"] = Field(
        "none",
        description="for a relative teacher: the map of each training frame is fitted to its ground truth, by a scale, or by "
        "scale and shift of depth or of 1 / depth",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "TeacherConfig":
        given = [name for name in TEACHER_SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"teacher: needs exactly one of {', '.join(TEACHER_SOURCES)}, got {' and '.join(given) or 'none of them'}"
            )
        return self

    @property
    def made(self) -> bool:
        """Whether its maps are made by the launch, in the run store."""
        return self.maps is None or self.is_aligned

    @property
    def is_aligned(self) -> bool:
        """Whether its maps are fitted to the ground truth of the training frames; of other frames there are none."""
        return self.align != "none"


class StudentConfig(Section):
    """The network that is trained: a timm encoder with a decoder, or a teacher's architecture."""

    name: Annotated[str, OneOf("student.name", NETWORKS)] = Field(
        "mobilenetv2",
        description="a student ('timm' takes any encoder) or a teacher's architecture",
    )
    encoder: str | None = Field(None, description="name of a timm model that supports features_only")
    levels: tuple[Annotated[int, Field(ge=0, le=64)], ...] = Field(
        (0, 1, 2, 3, 4), min_length=2, description="feature levels of the encoder that the decoder reads"
    )
    output_stride: Literal[8, 16, 32] = Field(32, description="dilate the encoder's last stages to keep this stride")
    decoder: Literal["densedepth", "fastdepth"] = Field(
        "densedepth", description="that of the published students, or FastDepth's, which needs a fraction of its operations"
    )
    decoder_channels: tuple[Annotated[int, Field(ge=4, le=16_384)], ...] = Field(
        (512, 256, 256, 128, 128), min_length=2, description="one width per level, starting with the deepest"
    )
    head: Head = Field("dpm", description="expected depth over fixed bins, one sigmoid, or AdaBins' bins per image")
    pretrained: bool | Text = Field(
        False,
        description="start from timm's ImageNet weights, from the hub or its cache; or from those of a file, whose content "
        "identifies a run",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "StudentConfig":
        if not self.encoder:
            raise ValueError(f"student.encoder: student.name {self.name!r} needs the name of a timm model")
        if self.is_teacher:
            defaults = TEACHERS[self.name].defaults["student"]
            head, widths = defaults["head"], len(defaults["decoder_channels"])
            if self.head != head:
                raise ValueError(f"student.head: {self.name} has the head {head!r}, got {self.head!r}")
            if self.decoder != "densedepth":
                raise ValueError(f"student.decoder: {self.name} has its own decoder, got {self.decoder!r}")
            if len(self.decoder_channels) != widths:
                raise ValueError(
                    f"student.decoder_channels: {self.name} needs {widths} widths, got {len(self.decoder_channels)}"
                )
        elif self.head == "adaptive_bins":
            raise ValueError("student.head: 'adaptive_bins' is only valid for AdaBins; for students: dpm, regression")
        elif len(self.levels) != len(self.decoder_channels):
            raise ValueError(
                f"student.decoder_channels: expected one width per level, got {len(self.decoder_channels)} for "
                f"{len(self.levels)} levels"
            )
        return self

    @property
    def is_teacher(self) -> bool:
        """Whether it is the architecture of a published teacher."""
        return self.name in TEACHERS

    @property
    def is_preset(self) -> bool:
        """Whether encoder, levels, stride and widths are the defaults of its name: such a network is known to build."""
        defaults = NETWORKS[self.name].defaults.get("student", {})
        if "encoder" not in defaults:  # such as "timm", whose encoder the config names
            return False
        return self == StudentConfig(**{**defaults, "name": self.name, "head": self.head})


class BinsConfig(Section):
    """Depth bins between data.min_depth and data.max_depth."""

    n_bins: int = Field(257, ge=2, le=4096, description="number of bins; there is one more edge")
    spacing: Literal["uniform", "log", "inverse"] = Field("uniform", description="equal steps of d, log d or 1/d")


class OptimConfig(Section):
    """AdamW, with a learning rate that depends on the step alone."""

    epochs: int = Field(24, ge=1, le=100_000, description="passes over the training frames")
    batch_size: int = Field(16, ge=1, le=65_536, description="images per step, over all workers")
    lr: float = Field(1e-3, gt=0, description="peak of the one-cycle schedule; start of the cosine, before warm-up")
    lr_factor: float = Field(1.0, gt=0, description="learning rate of decoder and head, relative to the encoder's")
    betas: tuple[Decay, Decay] = Field((0.95, 0.99), description="AdamW's decay rates of the moments")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay")
    decay_norms: bool = Field(True, description="whether weight decay acts on layer norms and position biases")
    schedule: Literal["one_cycle", "cosine"] = Field(
        "one_cycle", description="cosine up and down, or one cosine down with a linear warm-up"
    )
    warmup: Probability = Field(0.3, description="share of the steps before the peak")
    div_factor: float = Field(25.0, ge=1, description="peak divided by the first learning rate")
    final_div_factor: float = Field(100.0, ge=1, description="first divided by the last learning rate")
    momentum_cycle: tuple[Decay, Decay] | None = Field(
        None, description="first beta at the ends and at the peak of the cycle; default: constant"
    )
    clip_grad_norm: float = Field(35.0, gt=0, description="upper bound of the gradient's norm")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast of the network; losses stay in fp32")


class AugmentConfig(Section):
    """Random augmentation: geometry moves image, ground truth and teacher map together, color changes the image alone."""

    rotate_p: Probability = Field(0.5, description="probability of a rotation")
    rotate_degrees: float = Field(2.5, ge=0, le=45, description="largest rotation, degrees")
    flip_p: Probability = Field(0.5, description="probability of a horizontal flip")
    colour_p: Probability = Field(0.5, description="probability of a change of color")
    gamma: Range = Field((0.9, 1.1), description="range of the exponent")
    brightness: Range = Field((0.9, 1.1), description="range of the factor on all channels")
    colour: Range = Field((0.9, 1.1), description="range of the factor on each channel")

    @field_validator("gamma", "brightness", "colour")
    @classmethod
    def _ordered(cls, value: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"augment.{info.field_name}: expected a range from low to high, got {value}")
        return value


class EvaluationConfig(Section):
    """How a network is evaluated on the test frames."""

    protocol: Annotated[str, ProtocolName("evaluation.protocol")] = Field(
        "none", description="crop and depth cap (`tiekd list protocols`): NAME, or NAME@50m+median with a cap and an alignment"
    )
    also: tuple[Annotated[str, ProtocolName("evaluation.also")], ...] = Field(
        (),
        description="more protocols under which the trained network is scored, in the same pass; not part of a run's identity",
    )
    flip_tta: bool = Field(True, description="average with the prediction of the mirrored image")
    every: int = Field(
        1,
        ge=1,
        le=100_000,
        description="epochs between validations; the last epoch is always validated; not part of a run's identity",
    )

    @property
    def specs(self) -> dict[str, ProtocolSpec]:
        """The protocols by name, that of the validations first."""
        return {name: protocol_of(name, "evaluation.also") for name in (self.protocol, *self.also)}


class ExecutionConfig(Section):
    """Where and how fast a run is computed. Nothing here changes its numbers beyond rounding, or its identity."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if a worker gets one, else the CPU")
    kernel: Kernel = Field("torch", description="implementation of DPM and L_DPM; triton: GPU kernels, for CUDA devices only")
    compile: bool = Field(False, description="train with torch.compile, which takes minutes at the start (docs/speed.md)")
    workers: int = Field(1, ge=1, le=4096, description="processes that train one run together")
    gpus_per_worker: Annotated[_Share | Literal["auto"], AutoOr("a number from 0 to 1")] = Field(
        "auto", description="GPUs that a process reserves, and sees; auto: 1 where there are GPUs, else 0; 0.5: two share one"
    )
    cpus_per_worker: Annotated[_Cpus | Literal["auto"], AutoOr("a whole number from 1 to 4096")] = Field(
        "auto", description="CPUs that a process reserves, and its PyTorch threads; auto: with a GPU its share of them, else 1"
    )
    data_workers: Annotated[_Processes | Literal["auto"], AutoOr("a whole number from 0 to 1024")] = Field(
        "auto", description="processes that decode images; 0: the training process; auto: with a GPU a CPU less, else 0"
    )
    cache_gb: float = Field(
        1.0, ge=0, description="GB of decoded frames that a process keeps for later epochs and runs; all frames or none"
    )
    packed: Text | None = Field(None, description="folder of `tiekd data pack` from which frames and maps are read")
    checkpoint_minutes: float = Field(
        10.0, gt=0, description="minutes after which the state is kept within an epoch, beside the state after each epoch"
    )
    keep_checkpoint: bool = Field(False, description="keep the state of a training that is done")
    store: Text = Field("store", description="folder or URI of the run store")

    def resolved(self, cpus_per_gpu: float) -> "ExecutionConfig":
        """Return these settings with a number for every `auto`. cpus_per_gpu: CPUs for each GPU; 0 where there are no GPUs."""
        gpus, cpus, data_workers = self.gpus_per_worker, self.cpus_per_worker, self.data_workers
        if gpus == "auto":
            gpus = 1.0 if cpus_per_gpu and self.device != "cpu" else 0.0
        if cpus == "auto":
            cpus = max(min(int(cpus_per_gpu * gpus + 1e-6), 1 + MAX_AUTO_DATA_WORKERS), 1)
        if data_workers == "auto":
            data_workers = min(int(cpus) - 1, MAX_AUTO_DATA_WORKERS) if gpus else 0
        numbers = {"gpus_per_worker": gpus, "cpus_per_worker": cpus, "data_workers": data_workers}
        return self.model_copy(update=numbers)

    def on_this_machine(self) -> "ExecutionConfig":
        """Return these settings with a number for every `auto`, for a process on this machine."""
        if "auto" not in (self.gpus_per_worker, self.cpus_per_worker, self.data_workers):
            return self
        gpus = usable_gpus()
        return self.resolved(usable_cpus() / gpus if gpus else 0)

    @property
    def gpus(self) -> float:
        """GPUs of a process."""
        return float(self.on_this_machine().gpus_per_worker)

    @property
    def cpus(self) -> int:
        """CPUs of a process."""
        return int(self.on_this_machine().cpus_per_worker)

    @property
    def threads(self) -> int:
        """PyTorch threads of a process: not more than the CPUs that it may use."""
        return min(self.cpus, usable_cpus())

    @property
    def loader_processes(self) -> int:
        """Processes that decode images: not more than the CPUs that this process may use."""
        return min(int(self.on_this_machine().data_workers), usable_cpus())
