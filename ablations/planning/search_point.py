"""Evaluate a point of a search: compute one run per seed and average the objectives. Imports neither Ray nor Optuna."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ablations.planning.constraints import INFEASIBLE, Constraint, violated
from ablations.planning.search_config import MEASURED_OBJECTIVES, RACE_FROM
from search_spaces.space import Point
from tiekd.config import ExecutionConfig, RunConfig, build
from tiekd.config.documents import with_values
from tiekd.config.labels import HIGHER_IS_BETTER
from tiekd.data.inputs import run_id_of
from tiekd.distill.preflight import ready_record
from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore

TrialResult = dict[str, Any]
ReportFn = Callable[[TrialResult], None]
ExecuteRun = Callable[[dict[str, Any], ReportFn], TrialResult]


@dataclass(frozen=True)
class SeedRuns:
    """The runs of a search's points: one per seed."""

    base: dict[str, Any]  # the settings that the base config states, without defaults
    seeds: list[int]
    objectives: list[str]
    constraints: tuple[Constraint, ...] = ()
    race: bool = False  # end a trial that does not promise to be better than the base by its first objective

    @property
    def names(self) -> list[str]:
        """The numbers that a trial needs: its objectives, and those that constraints bound."""
        return list(dict.fromkeys([*self.objectives, *(constraint.name for constraint in self.constraints)]))

    def computed_as(self, execution: ExecutionConfig) -> "SeedRuns":
        """Return the same runs with other settings of execution."""
        return replace(self, base={**self.base, "execution": execution.model_dump(mode="json")})

    def document(self, point: Point, seed: int) -> dict[str, Any]:
        return with_values(self.base, {**point, "seed": seed})

    def config(self, point: Point, seed: int) -> RunConfig:
        """Return the config of a run. Raises UserError if the settings of the point contradict each other."""
        return build(self.document(point, seed))


def execute_point(point: Point, seed_runs: SeedRuns, execute_run: ExecuteRun, report: ReportFn) -> TrialResult:
    """Compute the runs of a point, one seed after the other, and return the result of its trial.

    `report` receives each epoch of the first run, since schedulers compare trials by their first seed, and after each run but
    the last the means so far; "epoch" counts the epochs of all seeds. The first run that is not done ends the trial. A point
    whose student costs more than a constraint allows is not trained. A trial that loses a race ends like one that a scheduler
    stops, without a state.
    """
    if refused := _refuse_before_training(point, seed_runs):
        return refused
    results: list[TrialResult] = []
    for seed in seed_runs.seeds:
        result = execute_run(seed_runs.document(point, seed), (lambda epoch: None) if results else report)
        if result["state"] != "done":
            cause = f"seed {seed}: {result['cause']}" if len(seed_runs.seeds) > 1 else result["cause"]
            return {**result, "cause": cause, "run_ids": [*(r["run_id"] for r in results), result["run_id"]]}
        config = seed_runs.config(point, seed)
        record = RunStore(config.execution.store, must_exist=True).run(result["run_id"])
        results.append(result | measured_numbers(record, config, seed_runs.names))
        if len(results) < len(seed_runs.seeds):
            so_far = _mean_result(results, seed_runs)
            if seed_runs.race and not _is_promising(results, seed_runs):
                return so_far | {"cause": f"no gain to expect after {len(results)} of {len(seed_runs.seeds)} seeds"}
            report(so_far)
    final = _mean_result(results, seed_runs)
    cause = violated(seed_runs.constraints, final)
    return final | {"state": INFEASIBLE if cause else "done", "cause": cause}


def _is_promising(results: list[TrialResult], seed_runs: SeedRuns) -> bool:
    """Whether the results so far promise to be better than those of the base with the same seeds, as far as it has any."""
    if len(results) < RACE_FROM:
        return True
    from ablations.planning.sequential import promises_gain  # imports SciPy, which other trials do not need

    seeds, objective = seed_runs.seeds[: len(results)], seed_runs.objectives[0]
    configs = [seed_runs.config({}, seed) for seed in seeds]
    base = [RunStore(config.execution.store, must_exist=True).run(run_id_of(config)) for config in configs]
    theirs = [record.metrics().get(objective) for record in base]
    if None in theirs or [record.run_id for record in base] == [result["run_id"] for result in results]:
        return True
    sign = 1 if objective in HIGHER_IS_BETTER else -1
    gains = [sign * (result[objective] - value) for result, value in zip(results, theirs, strict=True)]
    return promises_gain(gains, RACE_FROM, len(seed_runs.seeds))


def _refuse_before_training(point: Point, seed_runs: SeedRuns) -> TrialResult | None:
    """Return the result of a point whose student costs more than a constraint allows; None for any other point."""
    names = [constraint.name for constraint in seed_runs.constraints if constraint.name in MEASURED_OBJECTIVES]
    if not names:
        return None
    try:
        config = seed_runs.config(point, seed_runs.seeds[0])
        record = ready_record(config, RunStore(config.execution.store, must_exist=True))
    except UserError:  # the run itself reports it
        return None
    costs = measured_numbers(record, config, names)
    cause = violated(seed_runs.constraints, costs)
    if not cause:
        return None
    record.write_config(config)
    return {"run_id": record.run_id, "run_ids": [record.run_id], "state": INFEASIBLE, "cause": cause, "epoch": 0, **costs}


def measured_numbers(record: RunRecord, config: RunConfig, names: list[str]) -> dict[str, float]:
    """Return those numbers that are measured on the student, not by validation."""
    wanted = [name for name in names if name in MEASURED_OBJECTIVES]
    if not wanted:
        return {}
    from tiekd.deploy.profile import run_efficiency  # imports PyTorch, which planning a search does not need

    efficiency = run_efficiency(record, config)
    return {name: efficiency[name] for name in wanted}


def _mean_result(results: list[TrialResult], seed_runs: SeedRuns) -> TrialResult:
    """Return the means of a trial's numbers over the runs so far, and the value of each objective for each run."""
    return {
        "run_id": results[0]["run_id"],
        "run_ids": [result["run_id"] for result in results],
        "epoch": sum(result["epoch"] for result in results),
        "device_seconds": sum(result["device_seconds"] for result in results),
        # Tune would flatten a dict.
        "by_seed": [[result[name] for result in results] for name in seed_runs.objectives],
        **{name: statistics.fmean(result[name] for result in results) for name in seed_runs.names},
    }
