"""The section `loss` of a run config: a named loss, or a weighted sum of parts that each have a target of their own."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from tiekd.config.sections import OneOf, Section
from tiekd.config.specs import DEFAULT_DPM, DPMS, LOSSES, LossSpec
from tiekd.errors import shorten


class LossPart(Section):
    """One of the losses that `loss.parts`, a mapping by name, sums in place of `loss.name`. They share the other settings."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required"))  # its key is the default name

    name: Annotated[str, OneOf("loss.parts: name", LOSSES)] = Field(description="name of a loss; default: that of the part")
    target: Literal["teacher", "ground_truth", "image"] = Field(
        "teacher", description="what it compares the prediction with; the image for smoothness, and only there"
    )
    weight: float = Field(1.0, ge=0, description="factor on the loss; a part of weight 0 is left out")

    @model_validator(mode="after")
    def _consistent(self) -> "LossPart":
        if self.spec.of_image != (self.target == "image"):
            valid = "'image'" if self.spec.of_image else "'teacher' or 'ground_truth'"
            raise ValueError(f"loss.parts: target of {self.name!r}: expected {valid}, got {self.target!r}")
        return self

    @property
    def spec(self) -> LossSpec:
        """The entry of its loss."""
        return LOSSES[self.name]


def with_named_parts(loss: dict[str, Any]) -> dict[str, Any]:
    """Return the document of the section `loss` with its `parts` as a mapping, and with null for what they replace.

    A list of parts becomes a mapping by the name of each, and by its target if the name occurs twice.
    """
    parts = loss.get("parts")
    if parts is None:  # null in place of a name is the default
        return {key: value for key, value in loss.items() if value is not None or key not in ("name", "target", "parts")}
    if isinstance(parts, list) and all(isinstance(part, dict) and isinstance(part.get("name"), str) for part in parts):
        names = [part["name"] for part in parts]
        keys = [
            n if names.count(n) == 1 else f"{n}_{part.get('target', 'teacher')}" for n, part in zip(names, parts, strict=True)
        ]
        if len(set(keys)) < len(keys):
            twice = next(part for key, part in zip(keys, parts, strict=True) if keys.count(key) > 1)
            raise ValueError(f"loss.parts: {twice['name']!r} on the target {twice.get('target', 'teacher')!r} is given twice")
        parts = dict(zip(keys, parts, strict=True))
    if not isinstance(parts, dict) or not parts or not all(isinstance(part, dict | LossPart) for part in parts.values()):
        raise ValueError(
            "loss.parts: expected a mapping such as {si: {target: ground_truth}, l_dpm: {target: teacher, weight: 0.1}}, "
            f"got {shorten(repr(parts))}"
        )
    named = {key: {"name": key} | part if isinstance(part, dict) else part for key, part in parts.items()}
    for key, part in named.items():
        if isinstance(part, dict) and (spec := LOSSES.get(str(part["name"]))) and spec.of_image:
            named[key] = {"target": "image"} | part
    return {"name": None, "target": None, **loss, "parts": named}


def _or_list(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "array", "items": {"type": "object"}})


class LossConfig(Section):
    """The loss and its settings. Settings that the named loss does not read are not part of a run's identity."""

    name: Annotated[str, OneOf("loss.name", LOSSES)] | None = Field(
        "tie_kd", description="name of a loss (`tiekd list losses`); null with parts"
    )
    target: Literal["teacher", "ground_truth"] | None = Field(
        "teacher", description="'si' on ground truth is the Baseline; null with parts"
    )
    parts: dict[Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_-]*$", max_length=100)], LossPart] | None = Field(
        None,
        description="in place of a name: losses that are summed, each with target and weight; they share the other settings",
        json_schema_extra=_or_list,
    )
    alpha: float = Field(0.1, ge=0, description="tie_kd: weight of L_DPM; L_DEPTH has 1 - alpha; at most 1")
    scale: float = Field(10.0, gt=0, description="tie_kd: factor on the whole loss")
    dpm: Annotated[str, OneOf("loss.dpm", DPMS)] = Field(
        DEFAULT_DPM, description="how the teacher's depth becomes a distribution over bins (`tiekd list dpms`)"
    )
    sigma: float = Field(
        0.5,
        ge=1e-6,
        le=100,
        description="m; standard deviation of the density around the teacher's depth; indoors 0.15 by default",
    )
    temperature: float = Field(
        1.0, ge=1e-3, le=1e3, description="softmax_density: divides the density before the softmax; published: 1"
    )
    si_weight: float = Field(1.0, gt=0, description="weight of the scale-invariant term")
    si_mean_weight: float = Field(0.15, ge=0, le=1, description="weight of the squared mean in the scale-invariant term")
    mse_weight: float = Field(1.0, gt=0, description="weight of the MSE term")
    ssim_weight: float = Field(1.5, gt=0, description="weight of the 1 - SSIM term of Res-KD")
    ssim_range: float | None = Field(None, gt=0, description="m; dynamic range in SSIM's constants; default: data.max_depth")
    chamfer_weight: float = Field(0.1, ge=0, description="si_chamfer: weight of the distance from bins to the image's depths")
    fov: float = Field(
        60.0,
        ge=1,
        le=170,
        description="degrees; assumed field of view across the width of a frame; normals and virtual normals",
    )

    @model_validator(mode="before")
    @classmethod
    def _named_parts(cls, document: Any) -> Any:
        return with_named_parts(document) if isinstance(document, dict) else document

    @model_validator(mode="after")
    def _consistent(self) -> "LossConfig":
        if self.parts is None:
            if LOSSES[str(self.name)].of_image:
                raise ValueError(f"loss.name: {self.name!r} compares with the image alone, so it is only one of loss.parts")
            return self
        for setting in ("name", "target"):
            if (value := getattr(self, setting)) is not None:
                raise ValueError(f"loss.{setting}: loss.parts state their own, got {value!r} and parts {', '.join(self.parts)}")
        if not self.targets - {"image"}:
            raise ValueError("loss.parts: at least one on the teacher or ground truth needs a weight above 0")
        pairs = [(part.name, part.target) for part in self.parts.values()]
        if twice := next((pair for pair in pairs if pairs.count(pair) > 1), None):
            raise ValueError(f"loss.parts: {twice[0]!r} on the target {twice[1]!r} is given twice")
        return self

    @property
    def terms(self) -> dict[str, LossPart]:
        """The parts with a weight, ground truth first, then by name; a named loss is its only part."""
        if self.parts is None:
            assert self.name is not None
            assert self.target is not None
            return {self.name: LossPart(name=self.name, target=self.target)}
        weighted = {key: part for key, part in self.parts.items() if part.weight}
        return dict(sorted(weighted.items(), key=lambda item: (item[1].target, item[0])))

    @property
    def targets(self) -> frozenset[str]:
        """What the prediction is compared with."""
        return frozenset(part.target for part in self.terms.values())

    @property
    def reads(self) -> frozenset[str]:
        """The settings of this section that its losses read, of sigma and temperature only those of its DPM."""
        found = frozenset(setting for part in self.terms.values() for setting in part.spec.reads)
        return found - {"sigma", "temperature"}.difference(DPMS[self.dpm].reads) if "dpm" in found else found

    @property
    def fixes_scale(self) -> bool:
        """Whether a loss with a weight tells the student meters from any other unit."""
        of_si = self.si_mean_weight > 0
        return any(not part.spec.frees_scale and (of_si or part.name != "si") for part in self.terms.values())
