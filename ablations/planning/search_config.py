"""The `search:` block of a study, and the samplers and schedulers that it can name. Imports neither Optuna nor Ray."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ablations.planning.constraints import Constraint, parse_constraint
from tiekd.config import Section
from tiekd.config.labels import HIGHER_IS_BETTER, METRICS
from tiekd.errors import unknown

MAX_TRIALS = 100_000
RACE_FROM = 3  # seeds of a trial before it can end because it is not promising
# Objectives measured on the trained student: milliseconds per image, and number of parameters.
MEASURED_OBJECTIVES = ("milliseconds", "parameters")


@dataclass(frozen=True, kw_only=True)
class SamplerSpec:
    """A sampler: how a search chooses its points.

    The function `build` raises UserError if the sampler cannot do what the search asks for.
    """

    label: str
    description: str  # one sentence
    build: str  # 'module:function', (SearchConfig, SearchSpace, seed: int) -> optuna.samplers.BaseSampler
    exhaustive: bool = False  # tries each point of the space's grid once, and so needs no budget


@dataclass(frozen=True, kw_only=True)
class SchedulerSpec:
    """A scheduler: which trials of a search end early."""

    label: str
    description: str  # one sentence
    build: str  # 'module:function', (SearchConfig, max_epochs: int) -> TrialScheduler; the epochs are those of all seeds
    stops_trials: bool = True  # needs values of the first objective while trials run


SAMPLERS: dict[str, SamplerSpec] = {
    "tpe": SamplerSpec(
        label="TPE",
        description="Tree-structured Parzen estimator; takes conditional parameters and several objectives.",
        build="ablations.search.samplers:build_tpe",
    ),
    "random": SamplerSpec(
        label="Random",
        description="Draws points independently of each other.",
        build="ablations.search.samplers:build_random",
    ),
    "grid": SamplerSpec(
        label="Grid",
        description="Tries each combination of the parameters' grid values once.",
        build="ablations.search.samplers:build_grid",
        exhaustive=True,
    ),
    "cmaes": SamplerSpec(
        label="CMA-ES",
        description="Covariance matrix adaptation; for one objective over numeric parameters that are always active.",
        build="ablations.search.samplers:build_cmaes",
    ),
    "gp": SamplerSpec(
        label="Gaussian process",
        description="Bayesian optimization, for few trials and parameters that are always active; takes several objectives.",
        build="ablations.search.samplers:build_gp",
    ),
    "nsgaii": SamplerSpec(
        label="NSGA-II",
        description="Genetic search for the Pareto front of several objectives.",
        build="ablations.search.samplers:build_nsgaii",
    ),
}

SCHEDULERS: dict[str, SchedulerSpec] = {
    "asha": SchedulerSpec(
        label="ASHA",
        description="Asynchronous successive halving; at each rung, the best 1 / reduction_factor of the trials continue.",
        build="ablations.search.schedulers:build_asha",
    ),
    "median": SchedulerSpec(
        label="Median stopping",
        description="Stops a trial whose best value is worse than the median of the other trials' running averages.",
        build="ablations.search.schedulers:build_median",
    ),
    "none": SchedulerSpec(
        label="None",
        description="Runs every trial to its last epoch.",
        build="ablations.search.schedulers:build_fifo",
        stops_trials=False,
    ),
}


class SearchConfig(Section):
    """How the space is searched."""

    space: str = Field(description="file of the search space, in search_spaces/ or next to the study")
    sampler: str = Field("tpe", description="a key of SAMPLERS", json_schema_extra={"enum": [*SAMPLERS]})
    scheduler: str = Field("asha", description="a key of SCHEDULERS", json_schema_extra={"enum": [*SCHEDULERS]})
    trials: int | None = Field(
        None, ge=1, le=MAX_TRIALS, description="number of trials, over all launches; a grid tries at most its points"
    )
    hours: float | None = Field(None, gt=0, description="no trial starts later than this after the start of a launch")
    objectives: list[str] = Field(
        ["abs_rel"], min_length=1, description="metrics of the last validation, milliseconds per image, number of parameters"
    )
    constraints: list[str] = Field(
        [], description="bounds that a trial must keep, such as 'parameters <= 5e6'; names are those of objectives"
    )
    seeds: list[int] = Field([0], min_length=1, description="the value of a trial is the mean of its runs with these seeds")
    race: bool = Field(
        False, description=f"after {RACE_FROM} seeds, only points that promise to be better than the base config go on"
    )
    warm_start: bool = Field(False, description="add the points whose runs are already done in the store as first trials")
    grace_epochs: int = Field(1, ge=1, le=100_000, description="asha, median: epochs before a trial can be stopped")
    reduction_factor: int = Field(3, ge=2, le=1000, description="asha: one in this many trials continues at each rung")
    sampler_seed: int = Field(0, ge=0, le=2**31 - 1)

    @field_validator("sampler", "scheduler", "objectives")
    @classmethod
    def _check_names(cls, value: str | list[str], info: ValidationInfo) -> str | list[str]:
        if value == "pbt":
            raise ValueError(
                "search.scheduler: 'pbt' is not supported: it changes the settings of a run during training, and a run is "
                "identified by its settings, so its members could not be repeated or found in the store; "
                f"valid: {', '.join(SCHEDULERS)}"
            )
        valid = {"sampler": [*SAMPLERS], "scheduler": [*SCHEDULERS], "objectives": [*METRICS, *MEASURED_OBJECTIVES]}
        choices = valid[str(info.field_name)]
        for name in [value] if isinstance(value, str) else value:
            if name not in choices:
                raise ValueError(unknown(f"search.{info.field_name}", name, choices))
        return value

    @field_validator("constraints")
    @classmethod
    def _check_constraints(cls, texts: list[str]) -> list[str]:
        """Check each, and write it in one way: constraints with the same text are the same."""
        found = [str(parse_constraint(text, [*METRICS, *MEASURED_OBJECTIVES])) for text in texts]
        if len(set(found)) != len(found):
            raise ValueError(f"search.constraints: must not repeat a constraint, got {texts}")
        return found

    @model_validator(mode="after")
    def _check_consistent(self) -> "SearchConfig":
        for name, values in (("objectives", self.objectives), ("seeds", self.seeds)):
            if len(set(values)) != len(values):
                raise ValueError(f"search.{name}: must not repeat a value, got {values}")
        if self.race and len(self.seeds) <= RACE_FROM:
            raise ValueError(f"search.race: needs more than {RACE_FROM} seeds, got {len(self.seeds)}")
        if self.race and self.objective in MEASURED_OBJECTIVES:
            raise ValueError(f"search.race: compares a metric by seed, got the first objective {self.objective}")
        if SCHEDULERS[self.scheduler].stops_trials and self.objective in MEASURED_OBJECTIVES:
            raise ValueError(
                f"search.scheduler: {self.scheduler} compares trials by their first objective at each epoch, but "
                f"{self.objective} is measured only after training; put a metric first, or set scheduler to none"
            )
        return self

    @property
    def objective(self) -> str:
        """The first objective, which schedulers use and which ranks the trials."""
        return self.objectives[0]

    @property
    def modes(self) -> list[Literal["min", "max"]]:
        """The direction in which each objective improves."""
        return ["max" if name in HIGHER_IS_BETTER else "min" for name in self.objectives]

    @property
    def bounds(self) -> list[Constraint]:
        """The constraints, parsed."""
        return [parse_constraint(text, [*METRICS, *MEASURED_OBJECTIVES]) for text in self.constraints]
