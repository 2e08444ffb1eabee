"""Every setting of one run, on one page, and what makes two runs the same.

A run is one YAML document. Settings that it leaves out come from the presets of the data set, the student and the loss that it
names (`tiekd/presets.py`), then from the defaults below. Depths are metres, sizes are (height, width) in pixels.
"""

import copy
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from tiekd import presets
from tiekd.errors import UserError, unknown

Size = tuple[Annotated[int, Field(ge=16)], Annotated[int, Field(ge=16)]]
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Probability = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def _one_of(setting: str, choices: Collection[str]) -> AfterValidator:
    """Accepts a name among `choices`, and tells the nearest ones otherwise."""

    def check(name: str) -> str:
        if name not in choices:
            raise ValueError(unknown(setting, name, choices))
        return name

    return AfterValidator(check)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Which frames, and the range of depth that counts as valid."""

    dataset: Annotated[str, _one_of("data.dataset", presets.DATASETS)] = Field(description="a data set of tiekd.data.DATASETS")
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
    def synthetic(self) -> bool:
        return self.dataset.startswith("synthetic")

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if self.min_depth >= self.max_depth:
            raise ValueError(f"data.min_depth must be below data.max_depth, got {self.min_depth} and {self.max_depth}")
        if self.frame_size and not self.synthetic:
            raise ValueError(f"data.frame_size is for rendered data; {self.dataset} frames have the size they have")
        if self.frame_size and any(c > f for c, f in zip(self.train_crop, self.frame_size, strict=True)):
            raise ValueError(f"data.train_crop {self.train_crop} exceeds data.frame_size {self.frame_size}")
        return self


class TeacherConfig(Section):
    """A teacher is a folder of its depth maps, made once."""

    name: str = Field(description="how tables call it")
    maps: str = Field(description="folder of 16-bit maps with manifest.json; its digest, not its path, identifies a run")


class StudentConfig(Section):
    """A timm encoder with a DenseDepth-style decoder."""

    name: Annotated[str, _one_of("student.name", presets.STUDENTS)] = Field(
        "mobilenetv2", description="a student of tiekd.students.STUDENTS; 'timm' takes any encoder"
    )
    encoder: str | None = Field(None, description="timm model with features_only")
    levels: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2, 3, 4), min_length=2, description="encoder levels")
    output_stride: Literal[8, 16, 32] = Field(32, description="dilate the encoder's last stages to keep this stride")
    decoder_channels: tuple[Annotated[int, Field(ge=4)], ...] = Field(
        (512, 256, 256, 128, 128), min_length=2, description="one width per level, from the deepest"
    )
    head: Literal["dpm", "regression"] = Field("dpm", description="expected depth over bins, or one sigmoid")
    pretrained: bool = Field(False, description="start from timm's ImageNet weights (needs the network or a cache)")

    @model_validator(mode="after")
    def _consistent(self) -> "StudentConfig":
        if not self.encoder:
            raise ValueError("student.encoder is needed with student.name 'timm': the name of a timm model")
        if len(self.levels) != len(self.decoder_channels):
            raise ValueError(
                f"student.decoder_channels needs one width per level: {len(self.levels)} levels, "
                f"{len(self.decoder_channels)} widths"
            )
        return self


class BinsConfig(Section):
    """Bins between data.min_depth and data.max_depth."""

    n_bins: int = Field(257, ge=2, le=4096, description="number of bins (edges are one more)")
    spacing: Literal["uniform", "log", "inverse"] = Field("uniform", description="equal steps of d, log d or 1/d")


class LossConfig(Section):
    """What the student is trained on. Settings that the named loss does not read do not take part in a run's identity."""

    name: Annotated[str, _one_of("loss.name", presets.LOSSES)] = Field("tie_kd", description="a loss of tiekd.losses.LOSSES")
    target: Literal["teacher", "ground_truth"] = Field("teacher", description="'si' on ground truth is the Baseline")
    alpha: float = Field(0.1, ge=0, le=1, description="tie_kd: share of L_DPM, the rest is L_DEPTH")
    scale: float = Field(10.0, gt=0, description="tie_kd: factor on the whole loss")
    sigma: float = Field(0.5, ge=1e-6, le=100, description="m; spread of the teacher's density over bins")
    temperature: float = Field(1.0, ge=1e-3, le=1e3, description="divides the density before its softmax; 1 is published")
    si_weight: float = Field(1.0, gt=0, description="weight of the scale-invariant part")
    si_mean_weight: float = Field(0.15, ge=0, le=1, description="share of the squared mean log error in the SI part")
    mse_weight: float = Field(1.0, gt=0, description="weight of the MSE part")
    ssim_weight: float = Field(1.5, gt=0, description="weight of the 1 - SSIM part of Res-KD")
    ssim_range: float | None = Field(None, gt=0, description="m; dynamic range in SSIM's constants; default data.max_depth")

    @property
    def traits(self) -> presets.LossTraits:
        return presets.LOSSES[self.name]

    @property
    def method(self) -> str:
        """The method as the published tables name it."""
        return "Baseline" if self.target == "ground_truth" else self.traits.method


class OptimConfig(Section):
    """AdamW with a one-cycle learning rate, stepped per batch."""

    epochs: int = Field(24, ge=1)
    batch_size: int = Field(16, ge=1, description="images per step over all workers")
    lr: float = Field(1e-3, gt=0, description="peak of the cycle")
    betas: tuple[Decay, Decay] = (0.95, 0.99)
    weight_decay: float = Field(0.01, ge=0)
    warmup: Probability = Field(0.3, description="share of the steps until the peak")
    div_factor: float = Field(25.0, ge=1, description="peak over the first learning rate")
    final_div_factor: float = Field(100.0, ge=1, description="first over the last learning rate")
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
    protocol: Annotated[str, _one_of("evaluation.protocol", presets.PROTOCOLS)] = Field(
        "none", description="a protocol of tiekd.evaluate.PROTOCOLS: crop and cap"
    )
    flip_tta: bool = Field(True, description="average with the flipped-back prediction of the mirrored image")
    every: int = Field(1, ge=1, description="epochs between validations; the last epoch is always validated")


class ExecutionConfig(Section):
    """Where and how fast; nothing here changes the numbers, so nothing here identifies a run."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = Field(1, ge=1, description="processes that train one run together")
    cpus_per_worker: int = Field(1, ge=1, description="CPUs reserved on the cluster, and threads of PyTorch")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs reserved on the cluster; set it for training on GPUs")
    data_workers: int = Field(0, ge=0, description="processes that decode images; 0: in the training process")
    store: str = Field("store", description="folder or URI of the run store")


class RunConfig(Section):
    """All of one run."""

    data: DataConfig
    teacher: TeacherConfig | None = None
    student: StudentConfig
    bins: BinsConfig = BinsConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    augment: AugmentConfig = AugmentConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    fidelity: Literal["corrected"] = Field("corrected", description="the method as written, not as the released code ran")
    seed: int = Field(0, ge=0, le=2**31 - 1)
    execution: ExecutionConfig = ExecutionConfig()

    _document: dict = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _with_presets(cls, document: Any, handler: Any) -> "RunConfig":
        if isinstance(document, RunConfig):
            return document
        if not isinstance(document, Mapping):
            raise ValueError(f"a run config is a mapping of sections, got {type(document).__name__}")
        document = {k: v.model_dump() if isinstance(v, Section) else v for k, v in document.items()}
        for name in ("data", "teacher", "student", "bins", "loss", "optim", "augment", "evaluation", "execution"):
            if document.get(name) is not None and not isinstance(document[name], Mapping):
                raise ValueError(f"{name}: a section is a mapping of settings, got {document[name]!r}")
        filled = {"student": {}} | document
        for preset in presets.presets_for(filled):
            filled = _beneath(filled, preset)
        config = handler(filled)
        config._document = copy.deepcopy(document)
        return config

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        loss, traits = self.loss, self.loss.traits
        if traits.needs_dpm and self.student.head != "dpm":
            raise ValueError(f"loss.name {loss.name!r} needs student.head 'dpm', got {self.student.head!r}")
        if loss.target == "ground_truth" and traits.needs_dense_target:
            raise ValueError(
                f"loss.name {loss.name!r} needs a dense target: loss.target must be 'teacher', got 'ground_truth'"
                " (on ground truth: si, mse)"
            )
        if loss.target == "teacher" and self.teacher is None:
            raise ValueError(
                f"loss.target 'teacher' (loss {loss.name!r}) needs a teacher: section with name and maps; "
                "or set loss.target to 'ground_truth' (si, mse)"
            )
        return self

    def document(self) -> dict:
        """The whole config as plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")

    def with_absolute_paths(self) -> "RunConfig":
        """The same run, readable from any working folder of this machine."""
        paths = {"execution.store": self.execution.store}
        if self.data.root:
            paths["data.root"] = self.data.root
        if self.teacher:
            paths["teacher.maps"] = self.teacher.maps
        return override(self, {setting: _absolute(path) for setting, path in paths.items()})

    def identity(self) -> dict:
        """What is computed, as plain values: no paths, no execution, no setting that this run does not read."""
        what = self.document()
        del what["execution"]
        del what["data"]["root"], what["data"]["train_split"], what["data"]["test_split"]
        if self.loss.target != "teacher":
            what["teacher"] = None
        if what["teacher"]:
            del what["teacher"]["maps"]
        if self.student.head != "dpm":
            what["bins"] = None
        reads = {"name", "target", *self.loss.traits.reads}
        what["loss"] = {key: value for key, value in what["loss"].items() if key in reads}
        if not self.data.synthetic:
            del what["data"]["scene_seed"]
        return what

    def fingerprint(self, inputs: Mapping[str, str] | None = None) -> str:
        """16 hex digits over the identity and the digests of its inputs; equal exactly when the numbers must be."""
        content = {"config": self.identity(), "inputs": dict(inputs or {})}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _beneath(document: Mapping, preset: Mapping) -> dict:
    """`document` laid over `preset`, section by section."""
    merged = copy.deepcopy(dict(preset))
    for key, value in document.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = _beneath(value, merged[key])
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def build(document: Mapping, source: str = "config") -> RunConfig:
    """A checked config from plain values; a mistake is a `UserError` of one line."""
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, RunConfig)}") from None


class _Document(yaml.SafeLoader):
    """YAML without keys given twice, of which PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


def read_document(path: str | Path, what: str = "config") -> dict:
    """A YAML mapping from a file, or a `UserError` of one line."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} {path}: no such file")
    try:
        document = yaml.load(path.read_text(), _Document)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise UserError(f"{what} {path}: expected a mapping of settings, got {type(document).__name__}")
    return document


def load_config(path: str | Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> RunConfig:
    """The config of a YAML file with overrides, given as 'dotted.path=value' or as a mapping."""
    return build(with_values(read_document(path), parse_overrides(overrides)), source=str(path))


def override(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """`config` with some settings replaced, e.g. `{"loss.sigma": 0.8}`; presets are chosen afresh."""
    return build(with_values(config._document, values), source="override")


def parse_overrides(overrides: Iterable[str] | Mapping[str, Any]) -> dict[str, Any]:
    """'dotted.path=value' strings (values in YAML) as a mapping."""
    if isinstance(overrides, Mapping):
        return dict(overrides)
    values = {}
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise UserError(f"--set {text!r}: expected dotted.path=value, e.g. loss.sigma=0.8")
        try:
            values[path.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text!r}: the value is not valid YAML") from None
    return values


def with_values(document: Mapping, values: Mapping[str, Any]) -> dict:
    """A copy of a document with dotted paths set."""
    document = copy.deepcopy(dict(document))
    for path, value in values.items():
        *parents, leaf = path.split(".")
        section = document
        for name in parents:
            if section.get(name) is None:
                section[name] = {}
            section = section[name]
            if not isinstance(section, dict):
                raise UserError(f"{path}: {name!r} is a single setting, not a section")
        section[leaf] = copy.deepcopy(value)
    return document


def flatten(document: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted path."""
    flat = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def diff(a: RunConfig, b: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configs differ, by dotted path; a setting that one side lacks is None there."""
    left, right = flatten(a.document()), flatten(b.document())
    paths = sorted(left.keys() | right.keys())
    return {p: (left.get(p), right.get(p)) for p in paths if left.get(p) != right.get(p)}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """A pydantic error as one line: what was wrong, what came, what would be valid."""
    return "; ".join(_explain_one(item, model) for item in error.errors())


def _explain_one(item: Any, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return unknown(f"{path}: no such setting", item["loc"][-1], _fields_at(model, item["loc"][:-1]))
    if item["type"] == "missing":
        return f"{path} is needed"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    return f"{path}: {message[0].lower()}{message[1:]}, got {item['input']!r}"


def _fields_at(model: type[BaseModel], path: tuple) -> list[str]:
    """The settings of the section at `path`."""
    for name in path:
        field = model.model_fields.get(name) if isinstance(name, str) else None
        nested = _section_of(field.annotation) if field else None
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((s for s in map(_section_of, getattr(annotation, "__args__", ())) if s), None)
