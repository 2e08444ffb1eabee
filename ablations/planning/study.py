"""A study: a base config, what varies, the seeds, and optionally a search."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tiekd.config import Section
from tiekd.config.documents import explain, read_document, with_values
from tiekd.config.labels import METRICS
from tiekd.errors import UserError

Levels = list[str | int | float | bool | None] | dict[str, dict[str, Any]]
Factors = dict[str, Levels]


# Objectives measured on the finished student: ms per image, number of parameters.
MEASURED_OBJECTIVES = ("milliseconds", "parameters")
NO_PBT = (
    "search.scheduler: 'pbt' changes a run's settings while it trains, and here a run is its settings: none of its members "
    "could be named, repeated or found in the store again; valid: asha, median, none"
)


class SearchConfig(Section):
    """How the space is searched."""

    space: str = Field(description="file of the search space, next to the study or in search_spaces/")
    sampler: Literal["tpe", "random", "grid", "cmaes", "nsgaii"] = "tpe"
    scheduler: Literal["asha", "median", "none"] = "asha"
    trials: int | None = Field(None, ge=1, description="trials in all, over every launch; a grid is all its points")
    hours: float | None = Field(None, gt=0, description="of one launch: after that it begins no new trial")
    objectives: list[Literal[METRICS + MEASURED_OBJECTIVES]] = Field(
        ["abs_rel"], min_length=1, description="metrics of the last validation, milliseconds per image, number of parameters"
    )
    seeds: list[int] = Field([0], min_length=1, description="a trial's value is the mean over the runs with these seeds")
    warm_start: bool = Field(False, description="finished runs of the store that lie in the space are the first trials")
    grace_epochs: int = Field(1, ge=1, description="asha, median: no trial is stopped before")
    reduction_factor: int = Field(3, ge=2, description="asha: one trial in so many goes on at each rung")
    sampler_seed: int = Field(0, ge=0)

    @field_validator("scheduler", mode="before")
    @classmethod
    def _no_pbt(cls, name: Any) -> Any:
        if name == "pbt":
            raise ValueError(NO_PBT)
        return name

    @model_validator(mode="after")
    def _consistent(self) -> "SearchConfig":
        for name, values in (("objectives", self.objectives), ("seeds", self.seeds)):
            if len(set(values)) != len(values):
                raise ValueError(f"search.{name}: each once, got {values}")
        if self.scheduler != "none" and self.objective in MEASURED_OBJECTIVES:
            raise ValueError(
                f"search.scheduler: {self.scheduler} compares the first objective epoch by epoch, and {self.objective} is "
                "measured at the end; put a metric first, or set scheduler to none"
            )
        return self

    @property
    def objective(self) -> str:
        """The first objective: schedulers act on it, and by it trials are called best."""
        return self.objectives[0]

    @property
    def modes(self) -> list[Literal["min", "max"]]:
        """Which way each objective is better."""
        return ["max" if name.startswith("delta") else "min" for name in self.objectives]


class StudyConfig(Section):
    """One YAML document of ablations/studies.

    A factor is a config path with a list of values, or a free name with named levels, each a set of overrides:

        factors:
          loss.temperature: [0.1, 1.0]
          method:
            baseline: {loss.name: si, loss.target: ground_truth}
            tie-kd: {loss.name: tie_kd}

    A list of such mappings is the union of their cells.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="its folder in the store")
    title: str = Field("", description="heading in reports")
    base: dict[str, Any] = Field(description="a run config; a study's cells are overrides of it")
    factors: Factors | list[Factors] = Field(default_factory=dict)
    vary: Literal["grid", "one_at_a_time"] = Field("grid", description="all combinations, or one factor at a time")
    seeds: list[int] = Field([0], min_length=1)
    tables: list[str] = Field(default_factory=list, description="names of the tables that it feeds")
    search: SearchConfig | None = None

    @field_validator("factors", mode="before")
    @classmethod
    def _readable(cls, factors: Any) -> Any:
        """Refuse in plain words what the types would refuse in theirs."""
        for block in factors if isinstance(factors, list) else [factors]:
            if not isinstance(block, dict):
                raise ValueError(f"factors: expected a mapping of factors to levels, or a list of such mappings, got {block!r}")
            for name, levels in block.items():
                _check_levels(name, levels)
        return factors

    @property
    def blocks(self) -> list[Factors]:
        return self.factors if isinstance(self.factors, list) else [self.factors]


def _check_levels(name: Any, levels: Any) -> None:
    if isinstance(levels, list) and not any(isinstance(value, list | dict) for value in levels):
        paths = {name}
    elif isinstance(levels, dict) and all(isinstance(k, str) and isinstance(v, dict) for k, v in levels.items()):
        paths = {path for changes in levels.values() for path in changes}
    else:
        raise ValueError(
            f"factor {name}: expected a list of single values, or named levels such as {{a: {{loss.sigma: 0.5}}}}, "
            f"got {levels!r}"
        )
    for path in paths:
        if path == "seed":
            raise ValueError(f"factor {name}: seed is no factor; list it under seeds")
        if str(path).startswith("execution"):
            raise ValueError(f"factor {name}: {path} changes no number, and holds for a whole study; set it in base")


def load_study(
    path: str | Path, overrides: dict[str, Any] | None = None, name: str | None = None, seeds: int | None = None
) -> StudyConfig:
    """A study from its file, its base overridden by dotted paths, under another name or with seeds 0 .. seeds - 1 if given.

    Raises UserError for what is not a study, and for an override of what a factor varies.
    """
    document = read_document(path, "study") | ({"name": name} if name else {})
    try:
        study = StudyConfig.model_validate(document)
    except ValidationError as error:
        raise UserError(f"study {path}: {explain(error, StudyConfig)}") from None
    overrides = overrides or {}
    _refuse_varied(study, overrides)
    changes: dict[str, Any] = {"base": with_values(study.base, overrides)}
    if seeds is not None:
        if seeds < 1:
            raise UserError(f"--seeds: must be at least 1, got {seeds}")
        changes["seeds"] = list(range(seeds))
    if len(set(changes.get("seeds", study.seeds))) != len(changes.get("seeds", study.seeds)):
        raise UserError(f"study {path}: seeds: each seed once, got {study.seeds}")
    return study.model_copy(update=changes)


def _refuse_varied(study: StudyConfig, overrides: dict[str, Any]) -> None:
    varied = {path for block in study.blocks for name, levels in block.items() for path in factor_paths(name, levels)}
    for path in overrides:
        if path in varied or path == "seed":
            raise UserError(
                f"--set {path}: study {study.name} varies it; choose among its cells with --only, or edit the study"
                if path != "seed"
                else f"--set seed: study {study.name} repeats over seeds; use --seeds N"
            )


def factor_paths(name: str, levels: Levels) -> set[str]:
    """The config paths that a factor sets."""
    if isinstance(levels, dict):
        return {path for changes in levels.values() for path in changes}
    return {name}
