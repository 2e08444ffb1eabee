"""The sections of a run's config: every setting with its unit, its range and one sentence. Sizes are (height, width), px."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from tiekd.config.specs import DATASETS, LOSSES, NETWORKS, PROTOCOLS, TEACHERS, DatasetSpec, Head, LossSpec
from tiekd.errors import unknown

Size = tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]]
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Probability = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Kernel = Literal["torch", "triton"]


def _one_of(setting: str, choices: Collection[str]) -> AfterValidator:
    """Accept a name among `choices`; name the nearest ones otherwise."""

    def check(name: str) -> str:
        if name not in choices:
            raise ValueError(unknown(setting, name, choices))
        return name

    return AfterValidator(check)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Which frames, and the range of depth that counts as valid."""

    dataset: Annotated[str, _one_of("data.dataset", DATASETS)] = Field(description="name of a data set (`tiekd list datasets`)")
    root: str | None = Field(None, description="its folder; not part of a run's identity (the split lists' digests are)")
    train_split: str | None = Field(None, description="list of training frames, relative to root")
    test_split: str | None = Field(None, description="list of test frames, relative to root")
    train_frames: int | None = Field(None, ge=1, description="use only the first so many training frames")
    test_frames: int | None = Field(None, ge=1, description="use only the first so many test frames")
    frame_size: Size | None = Field(None, description="size of a rendered frame, px; synthetic data only")
    scene_seed: int = Field(0, ge=0, description="seed of the rendered scenes; synthetic data only")
    min_depth: float = Field(1e-3, gt=0, description="m; smaller depths are not valid")
    max_depth: float = Field(80.0, gt=0, description="m; larger depths are not valid, and no prediction exceeds it")
    train_crop: Size = Field((352, 704), description="size of a random training crop, px")

    @property
    def evaluation_size(self) -> Size:
        """Height and width in pixels of the frames on which a network is evaluated: KITTI's kb-crop, NYU's whole frame."""
        return self.frame_size or self.spec.evaluation_size

    @property
    def spec(self) -> DatasetSpec:
        return DATASETS[self.dataset]

    @property
    def rendered(self) -> bool:
        """Whether its frames are rendered, in any size that is asked for."""
        return self.spec.evaluation_size is None

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if self.min_depth >= self.max_depth:
            raise ValueError(f"data.min_depth must be below data.max_depth, got {self.min_depth} and {self.max_depth}")
        if self.frame_size and not self.rendered:
            raise ValueError(f"data.frame_size is for rendered data; {self.dataset} frames have the size they have")
        if self.frame_size and any(c > f for c, f in zip(self.train_crop, self.frame_size, strict=True)):
            raise ValueError(f"data.train_crop {self.train_crop} exceeds data.frame_size {self.frame_size}")
        return self


class TeacherConfig(Section):
    """A teacher is a folder of its depth maps, made once."""

    name: str = Field(description="how tables call it")
    maps: str = Field(description="folder of 16-bit maps with manifest.json; its digest, not its path, identifies a run")


class StudentConfig(Section):
    """The network that is trained: a timm encoder with a DenseDepth-style decoder, or a teacher's architecture."""

    name: Annotated[str, _one_of("student.name", NETWORKS)] = Field(
        "mobilenetv2",
        description="a student ('timm' takes any encoder) or a teacher's architecture",
    )
    encoder: str | None = Field(None, description="timm model with features_only")
    levels: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2, 3, 4), min_length=2, description="encoder levels")
    output_stride: Literal[8, 16, 32] = Field(32, description="dilate the encoder's last stages to keep this stride")
    decoder_channels: tuple[Annotated[int, Field(ge=4)], ...] = Field(
        (512, 256, 256, 128, 128), min_length=2, description="one width per level, from the deepest"
    )
    head: Head = Field("dpm", description="expected depth over bins, one sigmoid, or AdaBins' bins of each image")
    pretrained: bool = Field(False, description="start from timm's ImageNet weights (needs the network or a cache)")

    @model_validator(mode="after")
    def _consistent(self) -> "StudentConfig":
        if not self.encoder:
            raise ValueError("student.encoder is needed with student.name 'timm': the name of a timm model")
        if self.is_teacher:
            defaults = TEACHERS[self.name].defaults["student"]
            head, widths = defaults["head"], len(defaults["decoder_channels"])
            if self.head != head:
                raise ValueError(f"student.head: {self.name} has the head {head!r}, got {self.head!r}")
            if len(self.decoder_channels) != widths:
                raise ValueError(
                    f"student.decoder_channels: {self.name} needs {widths} widths, got {len(self.decoder_channels)}"
                )
        elif self.head == "adaptive_bins":
            raise ValueError("student.head 'adaptive_bins' is AdaBins' own; valid for students: dpm, regression")
        elif len(self.levels) != len(self.decoder_channels):
            raise ValueError(
                f"student.decoder_channels needs one width per level: {len(self.levels)} levels, "
                f"{len(self.decoder_channels)} widths"
            )
        return self

    @property
    def is_teacher(self) -> bool:
        """Whether it is a published teacher's architecture."""
        return self.name in TEACHERS

    @property
    def is_preset(self) -> bool:
        """Whether encoder, levels, stride and widths are those of its preset: a network that is known to build from nothing."""
        preset = NETWORKS[self.name].defaults.get("student", {})
        if "encoder" not in preset:  # such as "timm", whose encoder the config names
            return False
        return self == StudentConfig(**preset | {"name": self.name, "head": self.head})


class BinsConfig(Section):
    """Bins between data.min_depth and data.max_depth."""

    n_bins: int = Field(257, ge=2, le=4096, description="number of bins (edges are one more)")
    spacing: Literal["uniform", "log", "inverse"] = Field("uniform", description="equal steps of d, log d or 1/d")


class LossConfig(Section):
    """What the student is trained on. Settings that the named loss does not read do not take part in a run's identity."""

    name: Annotated[str, _one_of("loss.name", LOSSES)] = Field("tie_kd", description="name of a loss (`tiekd list losses`)")
    target: Literal["teacher", "ground_truth"] = Field("teacher", description="'si' on ground truth is the Baseline")
    alpha: float = Field(0.1, ge=0, description="tie_kd: share of L_DPM, the rest is L_DEPTH; at most 1")
    scale: float = Field(10.0, gt=0, description="tie_kd: factor on the whole loss")
    sigma: float = Field(0.5, ge=1e-6, le=100, description="m; spread of the teacher's density over bins")
    temperature: float = Field(1.0, ge=1e-3, le=1e3, description="divides the density before its softmax; 1 is published")
    si_weight: float = Field(1.0, gt=0, description="weight of the scale-invariant part")
    si_mean_weight: float = Field(0.15, ge=0, le=1, description="share of the squared mean log error in the SI part")
    mse_weight: float = Field(1.0, gt=0, description="weight of the MSE part")
    ssim_weight: float = Field(1.5, gt=0, description="weight of the 1 - SSIM part of Res-KD")
    ssim_range: float | None = Field(None, gt=0, description="m; dynamic range in SSIM's constants; default data.max_depth")
    chamfer_weight: float = Field(0.1, ge=0, description="si_chamfer: weight of the bins' distance to the depths of the image")

    @property
    def spec(self) -> LossSpec:
        return LOSSES[self.name]


class OptimConfig(Section):
    """AdamW with a learning rate that is a function of the step."""

    epochs: int = Field(24, ge=1)
    batch_size: int = Field(16, ge=1, description="images per step over all workers")
    lr: float = Field(1e-3, gt=0, description="peak of the cycle; start of the cosine, before the warm-up's factor")
    lr_factor: float = Field(1.0, gt=0, description="learning rate of all but the encoder, over the encoder's")
    betas: tuple[Decay, Decay] = (0.95, 0.99)
    weight_decay: float = Field(0.01, ge=0)
    decay_norms: bool = Field(True, description="whether weight decay acts on layer norms and position biases")
    schedule: Literal["one_cycle", "cosine"] = Field(
        "one_cycle", description="up and down along cosines, or one cosine down times a linear warm-up"
    )
    warmup: Probability = Field(0.3, description="share of the steps until the peak")
    div_factor: float = Field(25.0, ge=1, description="peak over the first learning rate")
    final_div_factor: float = Field(100.0, ge=1, description="first over the last learning rate")
    momentum_cycle: tuple[Decay, Decay] | None = Field(
        None, description="first beta at the ends and at the peak of the cycle; default: betas throughout"
    )
    clip_grad_norm: float = Field(35.0, gt=0)
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast of the student; losses stay in fp32")


class AugmentConfig(Section):
    """Image, ground truth and teacher map are moved together; colour touches the image only."""

    rotate_p: Probability = 0.5
    rotate_degrees: float = Field(2.5, ge=0, le=45)
    flip_p: Probability = 0.5
    colour_p: Probability = 0.5
    gamma: Range = (0.9, 1.1)
    brightness: Range = (0.9, 1.1)
    colour: Range = Field((0.9, 1.1), description="factor per channel")

    @field_validator("gamma", "brightness", "colour")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"a range goes from low to high, got {value}")
        return value


class EvaluationConfig(Section):
    protocol: Annotated[str, _one_of("evaluation.protocol", PROTOCOLS)] = Field(
        "none", description="crop and depth cap (`tiekd list protocols`)"
    )
    flip_tta: bool = Field(True, description="average with the flipped-back prediction of the mirrored image")
    every: int = Field(1, ge=1, description="epochs between validations; the last epoch is always validated")


class ExecutionConfig(Section):
    """Where and how fast; nothing here changes the numbers beyond rounding, so nothing here identifies a run."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    kernel: Kernel = Field("torch", description="what computes DPM and L_DPM; triton: GPU kernels, which need a CUDA device")
    compile: bool = Field(False, description="torch.compile of the student in training: minutes at first (docs/speed.md)")
    workers: int = Field(1, ge=1, description="processes that train one run together")
    cpus_per_worker: int = Field(1, ge=1, description="CPUs reserved on the cluster, and threads of PyTorch")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs reserved on the cluster; set it for training on GPUs")
    data_workers: int = Field(0, ge=0, description="processes that decode images; 0: in the training process")
    cache_gb: float = Field(
        1.0, ge=0, description="GB of decoded frames that a process may keep for later epochs and runs; all of the data or none"
    )
    packed: str | None = Field(None, description="folder of `tiekd data pack`; frames and maps are read from there")
    store: str = Field("store", description="folder or URI of the run store")
