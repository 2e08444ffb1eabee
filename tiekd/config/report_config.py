"""The settings of a paper table: the section `report` of a study, and the options of `tiekd report`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from tiekd.config.documents import explain
from tiekd.config.labels import LABELS, METRICS
from tiekd.config.sections import OneOf, Section, Text
from tiekd.errors import UserError

Bold = Literal["best", "tested", "none"]
Spread = Literal["std", "ci", "none"]
Metric = Annotated[str, OneOf("metrics", METRICS)]


class ReportConfig(Section):
    """What the table of a study shows, as a paper prints it."""

    metrics: tuple[Metric, ...] = Field(
        ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3"), min_length=1, description="columns of numbers"
    )
    rows: tuple[Text, ...] = Field(
        (), description=f"what tells rows apart: {', '.join(LABELS)}, or settings; default: all that vary"
    )
    columns: Text = Field("dataset", description="a label or setting whose values stand side by side")
    only: dict[str, tuple[Text, ...]] = Field(default_factory=dict, description="labels or settings, and the values to show")
    digits: int = Field(4, ge=0, le=9, description="decimals of every number")
    spread: Spread = Field("std", description="shown beside a mean: deviation over seeds, half its 95 % interval, or nothing")
    bold: Bold = Field("best", description="best: the best mean; tested: all that are not significantly worse; none")
    names: dict[str, Text] = Field(default_factory=dict, description="labels and values, and the names to print for them")
    caption: str = Field("", max_length=4096, description="caption; default: the title of the study")
    label: str = Field("", max_length=200, pattern=r"^[A-Za-z0-9:._-]*$", description="LaTeX label; default: tab:STUDY")

    @field_validator("metrics", "rows")
    @classmethod
    def _no_repeats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"must not repeat a name, got {', '.join(names)}")
        return names


def report_config(section: Mapping[str, Any], changes: Mapping[str, Any]) -> ReportConfig:
    """Build the settings from a study's section and the options of a command. Raises UserError for an invalid one."""
    try:
        return ReportConfig.model_validate({**section, **changes})
    except ValidationError as error:
        raise UserError(f"report: {explain(error, ReportConfig)}") from None
