"""Seeds of a study that are added until its rows are decided."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiekd.config import Section
from tiekd.config.labels import METRICS
from tiekd.config.sections import OneOf


class SeedsConfig(Section):
    """Seeds 0, 1, ... of each row until its difference from its Baseline is decided; see sequential.py."""

    until: Literal["decided"] = Field(description="the only rule")
    min: int = Field(3, ge=3, le=63, description="seeds before the first look")
    max: int = Field(12, ge=4, le=64, description="seeds at the last look")
    against: Literal["baseline"] = Field("baseline", description="the Baseline of the same data set and backbone")
    metric: Annotated[str, OneOf("metric", METRICS)] = Field("abs_rel", description="whose difference is tested")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="probability of any wrong decision in the study")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"seeds: min must be below max, got {self.min} and {self.max}")
        return self
