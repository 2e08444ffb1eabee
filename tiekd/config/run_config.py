"""The config of one run, and what makes two runs the same.

A run is one YAML document. The data set, the student and the loss that it names bring default settings
(tiekd/config/specs); the rest defaults as declared in sections.py and loss_section.py. Depths are in metres, sizes are (height,
width) in pixels.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from tiekd.config.documents import copied, explain, flatten, merged, parse_overrides, read_document, with_values
from tiekd.config.loss_section import LossConfig, with_named_parts
from tiekd.config.quirks import QUIRKS, QUIRKS_OF_DPM, RELEASED_SIGMA
from tiekd.config.sections import (
    AugmentConfig,
    BinsConfig,
    DataConfig,
    EvaluationConfig,
    ExecutionConfig,
    OptimConfig,
    Section,
    StudentConfig,
    TeacherConfig,
)
from tiekd.config.specs import DATASETS, DEFAULT_DPM, LOSSES, NETWORKS
from tiekd.errors import UserError, shorten, unknown

T = TypeVar("T")


class RunConfig(Section):
    """Everything that defines one run."""

    # A document may leave the student out: it has a default name.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("student"))

    data: DataConfig
    teacher: TeacherConfig | None = None
    student: StudentConfig
    bins: BinsConfig = BinsConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    augment: AugmentConfig = AugmentConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    fidelity: Literal["corrected", "released"] | tuple[str, ...] = Field(
        "corrected",
        description="the method as written, as the released code ran, or as written with the listed quirks of config/quirks.py",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1)
    execution: ExecutionConfig = ExecutionConfig()

    _document: dict = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _with_defaults(cls, document: Any, handler: Any) -> "RunConfig":
        if isinstance(document, RunConfig):
            return document
        if not isinstance(document, Mapping):
            raise ValueError(f"a run config is a mapping of sections, got {type(document).__name__}")
        document = {k: v.model_dump() if isinstance(v, Section) else v for k, v in document.items()}
        for name in ("data", "teacher", "student", "bins", "loss", "optim", "augment", "evaluation", "execution"):
            if document.get(name) is not None and not isinstance(document[name], dict):
                raise ValueError(f"{name}: a section is a mapping of settings, got {shorten(repr(document[name]))}")
        document = with_complete_teacher(document)
        if isinstance(document.get("loss"), dict):
            document["loss"] = with_named_parts(document["loss"])
        filled = {"student": {}} | document
        for defaults in defaults_for(filled):
            filled = merged(filled, defaults)
        config = handler(filled)
        config._document = copied(document)
        return config

    @field_validator("fidelity", mode="before")
    @classmethod
    def _known_fidelity(cls, value: Any) -> Any:
        """Check names here: pydantic would report an error for each alternative of the type."""
        if isinstance(value, list | tuple):
            for name in value:
                if not isinstance(name, str) or name not in QUIRKS:
                    raise ValueError(unknown("fidelity", name, QUIRKS))
            return tuple(sorted(set(value)))
        if value not in ("corrected", "released"):
            raise ValueError(f"fidelity: expected corrected, released or a list of quirks, got {shorten(repr(value))}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        loss = self.loss
        for key, part in loss.terms.items():
            section, spec = f"loss.parts.{key}" if loss.parts else "loss", part.spec
            if spec.needs_head and self.student.head != spec.head:
                raise ValueError(f"{section}.name: {part.name!r} needs student.head {spec.head!r}, got {self.student.head!r}")
            if part.target == "ground_truth" and spec.needs_dense_target:
                raise ValueError(
                    f"{section}.target: loss {part.name!r} needs a dense target, 'teacher', got 'ground_truth'"
                    f"; on ground truth: {_sparse_losses()}"
                )
        if loss.parts and self.allowed_quirks:
            raise ValueError("fidelity: the released code has no loss.parts; expected 'corrected'")
        if self.reads_teacher and self.teacher is None:
            raise ValueError(
                f"teacher: loss.target 'teacher' needs a section with name and maps; "
                f"or set loss.target to 'ground_truth' ({_sparse_losses()})"
                if "teacher" in loss.targets
                else "teacher: the quirk baseline_on_teacher needs a section with name and maps"
            )
        if self.reads_teacher and self.teacher and self.teacher.is_aligned:
            if self.allowed_quirks:
                raise ValueError("fidelity: the released code has no teacher.align; expected 'corrected'")
            if self.data.labelled is not None:
                raise ValueError(
                    "data.labelled: teacher.align uses the ground truth of every training frame, so none may be hidden; "
                    "expected null"
                )
        if loss.alpha > 1 and "alpha_unbounded" not in self.allowed_quirks:
            raise ValueError(f"loss.alpha: at most 1 without the quirk alpha_unbounded, got {loss.alpha}")
        if loss.dpm != DEFAULT_DPM and (acting := sorted(QUIRKS_OF_DPM & self.quirks)):
            quirks = f"quirk{'s' * (len(acting) > 1)} {', '.join(acting)}"
            raise ValueError(f"loss.dpm: only {DEFAULT_DPM!r} goes with the {quirks}, got {loss.dpm!r}")
        if self.execution.workers > self.optim.batch_size:
            raise ValueError(
                f"execution.workers: each worker needs an image of every batch, got {self.execution.workers} for "
                f"optim.batch_size {self.optim.batch_size}"
            )
        return self

    @property
    def allowed_quirks(self) -> frozenset[str]:
        """The quirks that `fidelity` names."""
        if isinstance(self.fidelity, tuple):
            return frozenset(self.fidelity)
        return frozenset(QUIRKS if self.fidelity == "released" else ())

    @property
    def quirks(self) -> frozenset[str]:
        """The quirks that change the numbers of this run."""
        return frozenset(name for name in self.allowed_quirks if QUIRKS[name].acts_on(self))

    @property
    def reads_teacher(self) -> bool:
        """Whether the training reads the teacher's maps."""
        return "teacher" in self.loss.targets or self._baseline_on_teacher

    @property
    def reads_ground_truth(self) -> bool:
        """Whether the training reads ground truth."""
        return "ground_truth" in self.loss.targets and not self._baseline_on_teacher

    @property
    def _baseline_on_teacher(self) -> bool:
        name = "baseline_on_teacher"  # checked alone: other quirks depend on whether a teacher is read
        return name in self.allowed_quirks and QUIRKS[name].acts_on(self)

    @property
    def dpm_sigma(self) -> float:
        """Standard deviation in m of the teacher's density in L_DPM's target, under the quirks of this run."""
        return RELEASED_SIGMA if "fixed_sigma" in self.quirks else self.loss.sigma

    @property
    def method(self) -> str:
        """The method in the published tables; "Teacher" for a teacher's architecture trained on ground truth.

        "Mixed" for parts of the loss on the teacher and others on ground truth.
        """
        if "teacher" not in self.loss.targets:
            return "Teacher" if self.student.is_teacher else "Baseline"
        if "ground_truth" in self.loss.targets:
            return "Mixed"
        return ", ".join(sorted({part.spec.method for part in self.loss.terms.values() if part.target == "teacher"}))

    @cached_property
    def teacher_run(self) -> "RunConfig | None":
        """The run that trains the teacher; None unless the teacher is one. It is computed where this one is."""
        if self.teacher is None or self.teacher.run is None:
            return None
        return build({**self.teacher.run, "execution": self.execution.model_dump(mode="json")}, source="teacher.run")

    @property
    def stated(self) -> dict:
        """The settings that the document states; the others are defaults."""
        return copied(self._document)

    def document(self) -> dict:
        """The complete config as plain values for YAML or JSON."""
        return self.model_dump(mode="json")

    def with_absolute_paths(self) -> "RunConfig":
        """The same run with absolute paths, which work from any folder of this machine."""
        paths: dict[str, Any] = {"execution.store": self.execution.store}
        if self.data.root:
            paths["data.root"] = self.data.root
        if self.teacher:
            paths |= {f"teacher.{name}": path for name in ("maps", "weights") if (path := getattr(self.teacher, name))}
        if self.teacher_run:
            paths["teacher.run"] = self.teacher_run.with_absolute_paths().document()
        if isinstance(self.student.pretrained, str):
            paths["student.pretrained"] = self.student.pretrained
        if self.execution.packed:
            paths["execution.packed"] = self.execution.packed
        absolute = {setting: _absolute(path) if isinstance(path, str) else path for setting, path in paths.items()}
        return override(self, absolute)

    def identity(self) -> dict:
        """What is computed, as plain values.

        Without paths and the source of the teacher's maps, in place of which the content of the inputs counts; execution; how
        often the student is validated, and under which other protocols it is scored; and settings that the run does not read.
        The teacher's name counts, because it names the run in tables.
        """
        what = self.document()
        del what["execution"], what["evaluation"]["every"], what["evaluation"]["also"]
        del what["data"]["root"], what["data"]["train_split"], what["data"]["test_split"]
        if not self.reads_teacher:
            what["teacher"] = None
        if what["teacher"]:
            what["teacher"] = {"name": what["teacher"]["name"]}
        if isinstance(self.student.pretrained, str):
            what["student"]["pretrained"] = "file"
        if self.student.decoder == "densedepth":  # what every student had before there was a choice
            del what["student"]["decoder"]
        if self.student.head == "regression":
            what["bins"] = None
        if self.student.head == "adaptive_bins":
            what["bins"] = {"n_bins": self.bins.n_bins}
        overruled = {setting for name in self.quirks for setting in QUIRKS[name].overrules}
        reads = self.loss.reads - overruled | ({"parts"} if self.loss.parts else {"name", "target"})
        if self.loss.dpm == DEFAULT_DPM:
            reads -= {"dpm"}  # the only one before there was a choice, whose runs keep their ids
        what["loss"] = {key: value for key, value in what["loss"].items() if key in reads}
        if self.loss.parts:
            what["loss"]["parts"] = {key: what["loss"]["parts"][key] for key in self.loss.terms}
        what["fidelity"] = sorted(self.quirks)
        if not self.data.rendered:
            del what["data"]["scene_seed"]
        del what["data"]["labelled"], what["data"]["label_seed"]  # the frames that they choose are in the digests
        # Which files a folder's frames consist of is in the digests of the inputs; these say what their values mean.
        folder = what["data"].pop("folder")
        if folder:
            what["data"]["folder"] = {name: folder[name] for name in ("name", "depth_scale", "invalid", "rotate_bits", "array")}
        return what

    def fingerprint(self, inputs: Mapping[str, str] | None = None) -> str:
        """16 hex digits over the identity and the digests of the inputs; equal if and only if the numbers must be."""
        content = {"config": self.identity(), "inputs": dict(inputs or {})}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def with_complete_teacher(document: Mapping[str, Any], inherited: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a config document whose `teacher.run`, if it has one, is the complete config of the run that trains the teacher.

    The document states a file with a run config, or changes: nested, or by dotted path. What they leave out comes from
    `inherited`, by default the document itself, except its teacher, loss and seed; the loss is SI on ground truth unless the
    network's recipe has its own. A complete config is left as it is. Raises UserError if it is invalid.
    """
    teacher = document.get("teacher")
    if not isinstance(teacher, Mapping) or teacher.get("run") is None:
        return dict(document)
    run = teacher["run"]
    if isinstance(run, str):
        complete = read_document(run, "teacher.run")
    elif isinstance(run, Mapping):
        settings = {key: value for key, value in (inherited or document).items() if key not in ("teacher", "loss", "seed")}
        changes: dict[str, Any] = {}
        for path, value in run.items():  # nested sections and dotted paths may set parts of one section
            changes = merged(with_values({}, {path: value}), changes)
        complete = merged(changes, settings)
        network = NETWORKS.get((complete.get("student") or {}).get("name", ""))
        if network and not network.defaults.get("loss") and not (complete.get("loss") or {}).get("parts"):
            complete = merged(complete, {"loss": {"name": "si", "target": "ground_truth"}})
    else:
        raise UserError(f"teacher.run: expected a run config's file or a mapping of settings, got {shorten(repr(run))}")
    what = build({**complete, "execution": {}}, source="teacher.run").document()
    del what["execution"]
    return {**document, "teacher": {**teacher, "run": what}}


def _sparse_losses() -> str:
    return ", ".join(name for name, spec in LOSSES.items() if not spec.needs_dense_target)


def defaults_for(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The default settings of the network, the loss and the data set that a config document names, strongest first.

    An unknown name brings none: validation refuses it.
    """
    network = _named(NETWORKS, document, "student", "name", default="mobilenetv2")
    section = document.get("loss") or {}
    if section.get("parts"):
        losses = [_named(LOSSES, section["parts"], key, "name") for key in section["parts"]]
    elif "name" in section:
        losses = [_named(LOSSES, document, "loss", "name")]
    else:
        recipe = network.defaults.get("loss", {}) if network else {}
        losses = [LOSSES[recipe.get("name", "tie_kd")]]
    heads = [loss.head for loss in sorted(filter(None, losses), key=lambda loss: (loss.needs_head, loss.head != "regression"))]
    dataset = _named(DATASETS, document, "data", "dataset")
    found = [network and network.defaults, heads and {"student": {"head": heads[-1]}}, dataset and dataset.defaults]
    return [defaults for defaults in found if defaults]


def _named(specs: Mapping[str, T], document: Mapping[str, Any], section: str, key: str, default: str | None = None) -> T | None:
    name = (document.get(section) or {}).get(key, default)
    return specs.get(name) if isinstance(name, str) else None


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def build(document: Mapping, source: str = "config") -> RunConfig:
    """Build a config from plain values. Raises UserError, in one line, for what is invalid."""
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, RunConfig)}") from None


def config_of_frames(document: Mapping[str, Any], source: str) -> RunConfig:
    """Build a config of which only `data`, `evaluation` and `execution` are used; the document need not state the rest."""
    return build({"loss": {"name": "si", "target": "ground_truth"}, **document}, source)


def load_config(path: str | Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> RunConfig:
    """Read the config of a YAML file; `overrides` are 'dotted.path=value' strings or a mapping. Raises UserError."""
    document = read_document(path)
    if "base" in document and "data" not in document:
        raise UserError(f"config {path}: is a study; run it with `tiekd ablate`, or name a run config")
    return build(with_values(document, parse_overrides(overrides)), source=str(path))


def override(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """A config with some settings replaced, e.g. `{"loss.sigma": 0.8}`; its defaults are chosen again."""
    return build(with_values(config.stated, values), source="override")


def diff(a: RunConfig, b: RunConfig) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configs differ, by dotted path; None where a side lacks the setting."""
    left, right = flatten(a.document()), flatten(b.document())
    paths = sorted(left.keys() | right.keys())
    return {p: (left.get(p), right.get(p)) for p in paths if left.get(p) != right.get(p)}
