"""A study from its file to finished cells."""

import itertools
import json
import os
import shlex
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ablations.monitor.reporters import LaunchOptions, print_event
from ablations.monitor.study_progress import StudyProgress
from ablations.monitor.terminal import failure_lines
from ablations.planning.plan import readiness_errors, study_record
from ablations.prepared_study import PreparedStudy
from tiekd.cli.console import make_console
from tiekd.config import ExecutionConfig, RunConfig
from tiekd.config.labels import TEACHER
from tiekd.store.run_status import FINISHED

RESULT_METRICS = ("abs_rel", "rmse", "delta1")
MAX_LISTED = 12  # missing inputs or failures that are printed before "and N more"


def print_plan(prepared: PreparedStudy, address: str | None, as_json: bool) -> None:
    """Print the plan, and what it will cost on the cluster at `address` or on this machine."""
    prepared = prepared.checked(readiness_errors)
    plan = prepared.plan
    slots = _slots(prepared.execution, address)
    if as_json:
        print(json.dumps(plan.to_dict() | {"estimate": plan.estimate().to_dict(slots)}, indent=2))
        return
    table = Table("run", "state", "cell", box=None, pad_edge=False)
    for c in plan.cells:
        table.add_row(c.run_id or "-", c.status.state, escape(str(c.cell)))
    console = make_console()
    console.print(table)
    console.print(f"{_summary(prepared)}; {len(plan.to_compute)} to compute, estimate {plan.estimate().tell(slots)}")
    _tell_waiting(prepared, console)


def _slots(execution: ExecutionConfig, address: str | None) -> int:
    """Workers that can compute at the same time; 0 where that is not known: this machine's GPUs are not counted."""
    if address:
        from ablations.execution.cluster import ray_cluster
        from ablations.execution.resources import trial_slots

        with ray_cluster(address, execution):
            return trial_slots(execution) * execution.workers
    each = execution.cpus_per_worker * execution.workers
    return 0 if execution.gpus_per_worker else (os.cpu_count() or 0) // each * execution.workers


def launch_study(prepared: PreparedStudy, address: str | None, launch_options: LaunchOptions) -> bool:
    """Compute what has its inputs and print where the study stands. Whether every cell ended well: one that waits did not."""
    plan = prepared.plan
    prepared.check_any_can_run()
    prepared.store.check_writable()
    console = launch_options.console
    started = time.perf_counter()
    todo = plan.to_compute
    _tell_replaced(prepared, console)
    if todo:
        console.print(
            f"study {prepared.study.name}: {len(plan.cells)} cells, {len(todo)} to compute, store {prepared.store.uri}"
        )
        _tell_waiting(prepared, console)
        launched = _launch(prepared, address, launch_options)
        todo, prepared = launched.plan.to_compute, launched.planned_again()
    _record(prepared)
    progress = prepared.progress()
    if launch_options.as_json:
        failures = [failure.to_dict() for failure in progress.failures]
        print_event("summary", **prepared.plan.to_dict(), computed=len(todo), failures=failures)
    else:
        _show_results(prepared, progress, console)
        _tell_waiting(prepared, console)
        computed = f"computed {len(todo)}, {time.perf_counter() - started:.1f} s" if todo else "nothing to compute"
        console.print(f"{_summary(prepared)}; {computed}")
    return all(c.status.state == "done" for c in prepared.plan.cells)


def _tell_replaced(prepared: PreparedStudy, console: Console) -> None:
    """A study's record lists the cells of its last launch; others of the same name keep their runs but leave its tables."""
    before = prepared.store.read_study(prepared.study.name) or {"cells": []}
    gone = {c["run_id"] for c in before["cells"]} - {c.run_id for c in prepared.whole.cells} - {None}
    if gone:
        console.print(
            f"study {prepared.study.name}: {len(gone)} cells of an earlier launch are not among today's; their runs stay in "
            "the store, outside this study (--name keeps both apart)"
        )


def _tell_waiting(prepared: PreparedStudy, console: Console) -> None:
    """What cells wait for, and the command that makes maps of a teacher that the study has trained."""
    for line, cells in itertools.islice(prepared.plan.waiting.items(), MAX_LISTED):
        console.print(f"[red]missing[/] {escape(line)} ({len(cells)} of {len(prepared.plan.cells)} cells)", highlight=False)
        if command := _export_command(prepared, cells[0].cell.config):
            console.print(f"the study has trained that teacher: {escape(command)}", highlight=False, soft_wrap=True)


def _export_command(prepared: PreparedStudy, config: RunConfig) -> str:
    """`tiekd teacher export` of the first run of the study that trained the teacher of `config`; "" where none is done."""
    made = config.teacher
    if not (config.reads_teacher and prepared.store.local) or Path(made.maps, "manifest.json").exists():
        return ""
    wanted = {"dataset": config.data.dataset, "method": TEACHER, "teacher": made.name}
    for c in prepared.whole.cells:
        if c.status.state == "done" and wanted.items() <= c.cell.labels.items():
            trained = f"{prepared.store.uri}/runs/{c.run_id}/config.yaml"
            return shlex.join(["tiekd", "teacher", "export", trained, "--out", made.maps, "--name", made.name])
    return ""


def _record(prepared: PreparedStudy) -> None:
    prepared.store.write_study(prepared.study.name, study_record(prepared.study, prepared.whole, prepared.commands))


def _launch(prepared: PreparedStudy, address: str | None, launch_options: LaunchOptions) -> PreparedStudy:
    """Compute what can begin. Returns the study less the cells that cannot.

    Ray is imported here: a study that is already done does not wait for it.
    """
    from ablations.execution.cluster import ray_cluster
    from ablations.execution.node_checks import mistakes_on_cluster

    with ray_cluster(address, prepared.execution):
        prepared = prepared.checked(mistakes_on_cluster)
        prepared.check_any_can_run()
        if prepared.plan.to_compute:
            _compute(prepared, launch_options)
    return prepared


def _compute(prepared: PreparedStudy, launch_options: LaunchOptions) -> None:
    """Compute the cells that can begin, on the cluster that is there."""
    from ablations.execution.node_checks import check_nodes
    from ablations.execution.sweep import Sweep, run_sweep
    from ablations.execution.trial import compute_cell
    from ablations.execution.tune_callback import track_progress

    todo = prepared.plan.to_compute
    check_nodes(prepared.store, [c.cell.config for c in todo])
    configs = {c.run_id: c.cell.config.document() for c in todo}
    progress = prepared.progress()
    cells = {c.run_id: c for c in progress.cells if c.run_id in configs}
    for cell in cells.values():
        cell.state = "waiting"
    with track_progress(
        progress, lambda params: cells[params["run_id"]], prepared.store, launch_options, prepared.execution
    ) as (callback, limit):
        _record(prepared)
        for c in todo:
            if c.status.state == "failed":
                prepared.store.run(c.run_id).write_status(replace(c.status, state="missing", cause="to be retried"))
        sweep = Sweep(
            name=prepared.study.name,
            trainable=partial(compute_cell, configs=configs),
            execution=prepared.execution,
            callback=callback,
            stopper=limit,
            run_id=lambda params: params["run_id"],
            points=list(configs),
        )
        run_sweep(sweep, prepared.store)


def _show_results(prepared: PreparedStudy, progress: StudyProgress, console: Console) -> None:
    """One line per cell: its numbers, or why it has none; what is missing is told once, below."""
    metrics_of = {c.run_id: c.metrics for c in progress.cells}
    table = Table("cell", *RESULT_METRICS, "state", box=None, pad_edge=False)
    for c in prepared.plan.cells:
        metrics = metrics_of.get(c.run_id)
        numbers = [f"{metrics[name]:.4f}" if metrics else "" for name in RESULT_METRICS]
        told = c.missing or not c.status.cause
        state = c.status.state if told else f"[red]{c.status.state}[/]: {escape(c.status.cause)}"
        table.add_row(escape(str(c.cell)), *numbers, state)
    console.print(table)
    if failures := progress.failures:
        for line in failure_lines(failures):
            console.print(line, highlight=False, soft_wrap=True)
        console.print("--retry-failed computes failed cells again")


def _summary(prepared: PreparedStudy) -> str:
    states = prepared.plan.states
    order = sorted(states, key=lambda state: (state not in FINISHED, state))
    return f"{len(prepared.plan.cells)} cells: " + ", ".join(f"{states[state]} {state}" for state in order)
