"""Run a search: from the `search:` block of a study to its best trial."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import optuna

from ablations.execution import check_variables
from ablations.monitor.reporters import LaunchOptions, print_event
from ablations.monitor.study_progress import CellProgress, StudyProgress
from ablations.planning.cells import StudyCell
from ablations.planning.constraints import INFEASIBLE
from ablations.planning.plan import make_plan
from ablations.planning.resources import trial_slots
from ablations.search.optuna_storage import ended_outside, get_trials, is_infeasible, restricted, study_exists
from ablations.search.prepared_search import (
    PreparedSearch,
    SearchOptions,
    SearchRecord,
    enqueue_base,
    open_search,
    prepare_search,
    start_search,
)
from ablations.search.results import (
    SearchResults,
    collect_results,
    floors_of,
    format_point,
    print_results,
    write_best_config,
)
from ablations.study_output import LaunchResources
from tiekd.config import ExecutionConfig
from tiekd.distill.remarks import remarks
from tiekd.errors import StoreError, UserError
from tiekd.store.claims import CLAIMS, STALE_S, Claims, open_launch


def run_search(
    study: str | Path,
    store: str | None,
    overrides: Sequence[str] | Mapping[str, Any],
    name: str | None,
    options: SearchOptions,
    address: str | None,
    launch_options: LaunchOptions,
) -> bool:
    """Search until the budget is spent and print the results.

    Returns whether the search was not stopped by failures and has at least one complete trial.
    """
    prepared = prepare_search(study, store, overrides, name, options)
    check_variables()
    prepared.store.check_writable()
    console = launch_options.console
    with contextlib.ExitStack() as stack:
        claim = cache(lambda: stack.enter_context(_only_launch(prepared)))
        # Before its trials are read. A search that is new and alone claims when nothing can be refused any more.
        if prepared.store.list_files(CLAIMS) or study_exists(prepared.name, prepared.url):
            claim()
        left = start_search(prepared, console)
        console.print(_headline(prepared, left))
        if lines := remarks([prepared.base]):
            console.print(lines, soft_wrap=True)
        ended = left == 0 or _launch(prepared, left, address, launch_options, claim)
        with open_search(prepared) as optuna_study:
            SearchRecord(prepared, optuna_study)
            results = collect_results(restricted(optuna_study, prepared.space), prepared.search, prepared.base_point)
            _report_results(prepared, optuna_study, results, launch_options)
    return ended and bool(results.best)


@contextlib.contextmanager
def _only_launch(prepared: PreparedSearch) -> Iterator[Claims]:
    """Announce this launch. Raises UserError if the search has another one, whose trials it would take for abandoned."""
    with open_launch(prepared.store, prepared.name, prepared.commands[-1]) as claims:
        if other := claims.take(prepared.name):
            raise UserError(
                f"search {prepared.name}: {other} runs it; launch one search of a name at a time, or use --name to start a "
                f"separate one (a launch that was killed on another machine counts for {STALE_S:.0f} s)"
            )
        try:
            yield claims
        finally:
            with contextlib.suppress(StoreError):
                claims.release(prepared.name)


def _headline(prepared: PreparedSearch, left: int | None) -> str:
    search = prepared.search
    trials = "trials" if left is None else f"{left} of {search.trials or len(prepared.space.grid())} trials"
    hours = "" if search.hours is None else f" for {search.hours:g} h"
    objectives = ("objective " if len(search.objectives) == 1 else "objectives ") + ", ".join(search.objectives)
    bounds = f", subject to {', '.join(search.constraints)}" if search.constraints else ""
    seeds = f", mean over seeds {', '.join(map(str, search.seeds))}" if len(search.seeds) > 1 else ""
    return f"search {prepared.name}: {trials} to run{hours}, {objectives}{bounds}{seeds}"


def _launch(
    prepared: PreparedSearch, left: int | None, address: str | None, launch_options: LaunchOptions, claim: Callable[[], Claims]
) -> bool:
    """Run the trials that are left. Returns False if too many failures with the same cause stopped them.

    Ray is imported here, so that a finished search does not wait for the import.
    """
    from ablations.execution.cluster import cluster_nodes, ray_cluster
    from ablations.execution.node_checks import check_nodes
    from ablations.execution.sweep import Sweep, run_sweep
    from ablations.execution.trial import compute_point
    from ablations.execution.tune_callback import track_progress
    from ablations.search.schedulers import build_scheduler
    from ablations.search.tune_searcher import Budget, OptunaSearcher

    search, epochs = prepared.search, prepared.base.optim.epochs
    max_epochs = epochs * len(search.seeds)
    progress = StudyProgress(prepared.name, [CellProgress(epochs=max_epochs) for _ in range(left or 0)], search.objective)

    def cell_of(params: dict[str, Any]) -> CellProgress:
        record.add(params["point"])
        return progress.start_cell(format_point(params["point"]), params["point"], max_epochs)

    with (
        contextlib.ExitStack() as stack,
        ray_cluster(address, prepared.base.execution) as execution,
        track_progress(progress, cell_of, prepared.store, launch_options, execution) as (callback, limit),
    ):
        LaunchResources.of(execution, cluster_nodes(), address, launch_options.max_concurrent).print(launch_options.console)
        check_nodes(prepared.store, [prepared.base], execution)
        claims = claim()
        study = stack.enter_context(open_search(prepared))
        record = SearchRecord(prepared, study)
        _make_maps(prepared, execution, launch_options, claims)
        enqueue_base(prepared, study)
        slots = trial_slots(execution, cluster_nodes())

        def wanted() -> int:
            """Fill the slots at once; then let one trial wait for a slot, so that a cluster that grows finds work."""
            return max(slots, len(progress.in_state("running")) + 1)

        budget = Budget(left, math.inf if search.hours is None else time.time() + 3600 * search.hours)
        sweep = Sweep(
            name=prepared.name,
            trainable=partial(compute_point, seed_runs=prepared.seed_runs.computed_as(execution), launch=claims.launch),
            execution=execution,
            callback=callback,
            stopper=limit,
            run_id=lambda params: prepared.current_run_id(params["point"]),
            searcher=OptunaSearcher(study, prepared.space, search, budget, limit.stop_all, wanted),
            claims=claims,
            scheduler=build_scheduler(search, epochs),
            max_concurrent=launch_options.max_concurrent,
        )
        run_sweep(sweep, prepared.store)
    return limit.reached is None


def _make_maps(prepared: PreparedSearch, execution: ExecutionConfig, launch_options: LaunchOptions, claims: Claims) -> None:
    """Make the teacher's maps that all trials read, unless they exist. Raises UserError, with the reason, if they cannot be."""
    from ablations.execution.run_jobs import run_jobs

    cell, run_id = StudyCell(prepared.base, {}), prepared.run_id_of(prepared.base)
    plan = make_plan([cell], prepared.store)
    if plan.maps_to_make:
        progress = StudyProgress(prepared.name, [])
        run_jobs(plan, progress, prepared.store, execution, launch_options, claims, lambda job: job.key != run_id)
        plan = make_plan([cell], prepared.store)
    if plan.missing_inputs or plan.maps_to_make:
        reason = next(iter(plan.missing_inputs), "its maps could not be made")
        raise UserError(f"search {prepared.name}: no trial can begin: {reason}")


def _report_results(
    prepared: PreparedSearch, study: optuna.Study, results: SearchResults, launch_options: LaunchOptions
) -> None:
    """Write the best config and the results to the store, and print them."""
    search, outside = prepared.search, ended_outside(study, prepared.space)
    trials = [trial for trial in get_trials(study) if trial not in outside]
    best_config = None
    if results.best:
        best_config = write_best_config(results, search, prepared.seed_runs, prepared.store, prepared.name)
    document = {
        "study": prepared.name,
        "trials": len(trials),
        "outside_trials": [trial.number for trial in outside],
        "objectives": search.objectives,
        "constraints": search.constraints,
        "infeasible": results.infeasible,
        "seeds": search.seeds,
        "best": results.best,
        "base": results.base,
        "front": results.front,
        "importance": results.importance,
        "best_config": best_config,
    }
    prepared.store.write_json(f"studies/{prepared.name}/findings.json", document)
    if launch_options.as_json:
        print_event("summary", **document)
        return
    console = launch_options.console
    counts = Counter(INFEASIBLE if is_infeasible(trial) else trial.state.name.lower() for trial in trials)
    console.print(f"search {prepared.name}: {', '.join(f'{n} {state}' for state, n in counts.items()) or 'no trials'}")
    if outside:
        console.print(
            f"{len(outside)} trials of earlier launches are outside the space of today's search; they count neither as results "
            f"nor against its budget: {', '.join(str(trial.number) for trial in outside)}",
            soft_wrap=True,
        )
    if best_config:
        console.print(f"best config: {best_config}", soft_wrap=True)
    print_results(results, search, console, floors_of(results, prepared.store))
