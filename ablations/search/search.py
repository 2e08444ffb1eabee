"""A search from its study's `search:` block to its best trial."""

import contextlib
import math
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from ablations.monitor.reporters import LaunchOptions, print_event
from ablations.monitor.study_progress import CellProgress, StudyProgress
from ablations.search.optuna_storage import get_trials
from ablations.search.prepared_search import (
    PreparedSearch,
    SearchOptions,
    enqueue_base,
    open_search,
    point_cells,
    prepare_search,
    record_search,
    start_search,
    write_search_study,
)
from ablations.search.results import SearchResults, collect_results, format_point, print_results, write_best_config


def run_search(
    path: Path,
    store: str | None,
    overrides: list[str],
    name: str | None,
    options: SearchOptions,
    address: str | None,
    launch_options: LaunchOptions,
) -> bool:
    """Search until the budget is spent; print what was found. Whether it came to its end, and there is a best."""
    prepared = prepare_search(path, store, overrides, name, options)
    prepared.store.check_writable()
    console = launch_options.console
    left = start_search(prepared, console)
    console.print(_headline(prepared, left), highlight=False)
    complete = left == 0 or _launch(prepared, left, address, launch_options)
    with open_search(prepared) as study:
        record_search(prepared, study)
        findings = collect_results(study, prepared.search, prepared.origin)
        _tell(prepared, study, findings, launch_options)
    return complete and bool(findings.best)


def _headline(prepared: PreparedSearch, left: int | None) -> str:
    search = prepared.search
    trials = "trials" if left is None else f"{left} of {search.trials or len(prepared.space.grid())} trials"
    hours = "" if search.hours is None else f" for {search.hours:g} h"
    objectives = ("objective " if len(search.objectives) == 1 else "objectives ") + ", ".join(search.objectives)
    seeds = f", mean over seeds {', '.join(map(str, search.seeds))}" if len(search.seeds) > 1 else ""
    return f"search {prepared.name}: {trials} to run{hours}, {objectives}{seeds}"


def _launch(prepared: PreparedSearch, left: int | None, address: str | None, launch_options: LaunchOptions) -> bool:
    """Run the trials that are left. Whether they came to an end: too many failures of one cause stop them.

    Ray is imported here: a search that is already done does not wait for it.
    """
    from ablations.execution.cluster import ray_cluster
    from ablations.execution.node_checks import check_nodes
    from ablations.execution.sweep import Sweep, run_sweep
    from ablations.execution.trial import compute_point
    from ablations.execution.tune_callback import track_progress
    from ablations.search.schedulers import build_scheduler
    from ablations.search.tune_searcher import Budget, OptunaSearcher

    search, epochs = prepared.search, prepared.base.optim.epochs
    whole = epochs * len(search.seeds)
    progress = StudyProgress(prepared.name, [CellProgress(epochs=whole) for _ in range(left or 0)], search.objective)

    cells: dict[str, dict] = {}

    def cell_of(params: dict[str, Any]) -> CellProgress:
        cells.update(point_cells(prepared, params["point"]))
        write_search_study(prepared, cells)
        return progress.start_cell(format_point(params["point"]), params["point"], whole)

    with (
        contextlib.ExitStack() as stack,
        ray_cluster(address, prepared.base.execution),
        track_progress(progress, cell_of, prepared.store, launch_options, prepared.base.execution) as (callback, limit),
    ):
        check_nodes(prepared.store, [prepared.base])
        study = stack.enter_context(open_search(prepared))
        cells |= record_search(prepared, study)
        enqueue_base(prepared, study)
        budget = Budget(left, math.inf if search.hours is None else time.time() + 3600 * search.hours)
        sweep = Sweep(
            name=prepared.name,
            trainable=partial(compute_point, repeats=prepared.repeats),
            execution=prepared.base.execution,
            callback=callback,
            stopper=limit,
            run_id=lambda params: prepared.run_at_work(params["point"]),
            searcher=OptunaSearcher(study, prepared.space, search, budget, limit.stop_all),
            scheduler=build_scheduler(search, epochs),
            trials=-1,  # the searcher says when there are no more
        )
        run_sweep(sweep, prepared.store)
    return limit.reached is None


def _tell(prepared: PreparedSearch, study: optuna.Study, findings: SearchResults, launch_options: LaunchOptions) -> None:
    """Write the winner's config and what was found into the store, and print it."""
    search, config = prepared.search, None
    if findings.best:
        config = write_best_config(findings, search, prepared.repeats, prepared.store, prepared.name)
    document = _document(prepared, study, findings, config)
    prepared.store.write_json(f"studies/{prepared.name}/findings.json", document)
    if launch_options.as_json:
        print_event("summary", **document)
        return
    console = launch_options.console
    states = Counter(trial.state.name.lower() for trial in get_trials(study))
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    console.print(f"search {prepared.name}: {told or 'no trials'}")
    if config:
        console.print(f"the winner as a config: {config}", highlight=False, soft_wrap=True)
    print_results(findings, search, console)


def _document(prepared: PreparedSearch, study: optuna.Study, findings: SearchResults, config: str | None) -> dict[str, Any]:
    return {
        "study": prepared.name,
        "trials": len(get_trials(study)),
        "objectives": prepared.search.objectives,
        "seeds": prepared.search.seeds,
        "best": findings.best,
        "base": findings.base,
        "front": findings.front,
        "importance": findings.importance,
        "best_config": config,
    }
