"""Run a study: from its document to finished cells in the run store."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ablations.execution import check_variables
from ablations.monitor.reporters import LaunchOptions, print_event
from ablations.planning.launch_command import launch_commands
from ablations.planning.plan import study_record
from ablations.planning.study import StudyConfig
from ablations.prepared_study import PreparedStudy, prepare_study
from ablations.study_output import (
    LaunchResources,
    count_states,
    print_decisions,
    print_missing_inputs,
    print_remarks,
    print_study_results,
    print_unread_factors,
)
from tiekd.config import RunConfig
from tiekd.store.claims import Claims, open_launch


@dataclass(frozen=True)
class CellResult:
    """A cell of a study and what the store has of its run."""

    run_id: str | None  # None if an input of the run is missing
    state: str  # done, failed, diverged, constant, running or missing
    cause: str  # why the run is not done
    factors: dict[str, Any]  # level of each factor
    config: RunConfig
    metrics: dict[str, float]  # of the last validation; empty unless the run is done


@dataclass(frozen=True)
class StudyResult:
    """The selected cells of a study after a launch."""

    name: str
    store: str  # folder or URI
    cells: list[CellResult]
    n_computed: int  # runs that this launch computed

    @property
    def complete(self) -> bool:
        """Whether every cell is done."""
        return all(cell.state == "done" for cell in self.cells)


def run_study(
    study: str | Path | StudyConfig,
    store: str | Path | None = None,
    *,
    address: str | None = None,
    name: str | None = None,
    seeds: int | None = None,
    only: Sequence[str] = (),
    retry_failed: bool = False,
    max_failures: int = 10,
    max_concurrent: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    until_decided: bool = False,
    shard: str | None = None,
    take_over: bool = False,
    verbose: bool = True,
) -> StudyResult:
    """Compute the cells of a study that its run store does not have yet, as `tiekd ablate` does.

    study: a YAML file, the name of a packaged study such as "debug", or a StudyConfig.
    store: the run store, a folder or a URI such as s3://bucket/prefix. Default: that of the study's base config.
    address: HOST:PORT of a Ray cluster, or "auto". Default: start Ray on this machine.
    name: store the launch under another study name.
    seeds: replace the study's seeds by 0 .. seeds - 1.
    only: compute only the cells that match every "name=value", where name is a label or a factor.
    retry_failed: compute failed cells again.
    max_failures: stop after this many failures with the same cause; 0: no limit.
    max_concurrent: compute at most this many cells at the same time. Default: as many as the resources allow.
    overrides: settings of the base config by dotted path, such as {"loss.sigma": 0.8}.
    until_decided: add seeds until the difference of each row from its Baseline is decided, at most `seeds`.
    shard: compute only every n-th cell, from the i-th, as "i/n". Default: share all cells with other launches of the study.
    take_over: compute also what other launches compute now; they stop at the end of their epochs.
    verbose: print progress and a table of results.

    A cell that fails does not raise an error; its state and cause are in the result. Raises UserError if the study is invalid
    or no cell can run, StoreError if the run store fails, ClusterError if Ray ends during the launch.
    """
    where = None if store is None else str(store)
    prepared = prepare_study(study, where, overrides or {}, name, seeds, only, retry_failed, until_decided, shard)
    options = LaunchOptions(False, max_failures, not verbose, max_concurrent, take_over)
    return launch_study(prepared, address, options)


def launch_study(prepared: PreparedStudy, address: str | None, launch_options: LaunchOptions) -> StudyResult:
    """Compute the selected cells that can run, record the study in the store, and print the results."""
    plan = prepared.plan
    prepared.check_any_can_run()
    prepared.store.check_writable()
    console = launch_options.console
    started = time.perf_counter()
    todo, computed = plan.to_compute, 0
    _print_replaced_cells(prepared, console)
    said = print_remarks(prepared, console)
    if todo:
        check_variables()
        console.print(
            f"study {prepared.study.name}: {len(plan.cells)} cells, {len(todo)} to compute, store {prepared.store.uri}"
        )
        print_missing_inputs(prepared, console)
        print_unread_factors(prepared, console)
        prepared, computed = _launch(prepared, address, launch_options)
        print_remarks(prepared, console, said)  # a floor is known once the maps are made
    else:
        _record(prepared)
    progress = prepared.progress()
    if launch_options.as_json:
        failures = [failure.to_dict() for failure in progress.failures]
        print_event("summary", **prepared.plan.to_dict(), computed=computed, failures=failures)
    else:
        print_study_results(prepared, progress, console)
        print_missing_inputs(prepared, console)
        print_decisions(prepared, console)
        done = f"computed {computed}, {time.perf_counter() - started:.1f} s" if computed else "nothing to compute"
        console.print(f"{count_states(prepared)}; {done}")
    metrics = {c.run_id: c.metrics for c in progress.cells}
    cells = [
        CellResult(c.run_id, c.status.state, c.status.cause, c.cell.factors, c.cell.config, metrics.get(c.run_id or "", {}))
        for c in prepared.plan.cells
    ]
    return StudyResult(prepared.study.name, prepared.store.uri, cells, computed)


def _print_replaced_cells(prepared: PreparedStudy, console: Console) -> None:
    """Say how many cells of the last launch leave the study's record, which has only the cells of the latest launch."""
    last = prepared.store.read_study(prepared.study.name)
    gone = {c["run_id"] for c in (last["cells"] if last else [])} - {c.run_id for c in prepared.full_plan.cells} - {None}
    if gone:
        console.print(
            f"study {prepared.study.name}: {len(gone)} cells of an earlier launch are no longer part of the study; their runs "
            "stay in the store (use --name to keep both versions)"
        )


def _record(prepared: PreparedStudy) -> None:
    """Write the study's record, with the commands of all its launches, also of those that go on now."""
    commands = launch_commands(prepared.store, prepared.study.name, *prepared.commands[-1:])
    record = study_record(prepared.study, prepared.full_plan, commands)
    sequential = {"sequential": prepared.sequential.to_dict()} if prepared.sequential else {}
    prepared.store.write_study(prepared.study.name, record | sequential)


def _launch(prepared: PreparedStudy, address: str | None, launch_options: LaunchOptions) -> tuple[PreparedStudy, int]:
    """Compute the cells that can begin on a Ray cluster, and the seeds that their results ask for.

    Returns the study as the store then has it, without the cells that cannot begin, and the number of computed runs.

    Ray is imported here, so that a finished study does not wait for the import.
    """
    from ablations.execution.cluster import cluster_nodes, ray_cluster
    from ablations.execution.node_checks import check_nodes, readiness_errors_on_cluster
    from ablations.execution.run_jobs import run_jobs

    tried: set[str | None] = set()
    elsewhere: set[str] = set()
    claims: Claims | None = None
    with ray_cluster(address, prepared.execution) as execution, contextlib.ExitStack() as stack:
        LaunchResources.of(execution, cluster_nodes(), address, launch_options.max_concurrent).print(launch_options.console)
        prepared = prepared.check_networks(readiness_errors_on_cluster)
        prepared.check_any_can_run()
        while todo := [c for c in prepared.plan.to_compute if c.run_id not in tried]:
            check_nodes(prepared.store, [c.cell.config for c in todo], execution)
            if claims is None:
                command = next(iter(prepared.commands[-1:]), ())
                opened = open_launch(prepared.store, prepared.study.name, command, launch_options.take_over)
                claims = stack.enter_context(opened)
            _record(prepared)
            elsewhere |= run_jobs(prepared.plan, prepared.progress(), prepared.store, execution, launch_options, claims)
            tried |= {c.run_id for c in todo}
            prepared = prepared.refreshed()
            if prepared.sequential is None:
                break
        _record(prepared)  # before this launch is announced no more
    return prepared, len(tried - elsewhere)
