"""A study from its file to finished cells."""

import itertools
import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ablations.plan import Plan, make_plan, study_record
from ablations.study import Study, load_study
from ablations.variants import Cell, expand, only
from tiekd.config import ExecutionConfig, RunConfig
from tiekd.display import make_console
from tiekd.documents import parse_overrides
from tiekd.errors import UserError
from tiekd.labels import TEACHER
from tiekd.store import FINISHED, RunStore

SHOWN = ("abs_rel", "rmse", "delta1")
LISTED = 12  # missing inputs or failures that are printed before "and N more"


@dataclass(frozen=True)
class Prepared:
    """A study whose cells have been looked up in its store."""

    study: Study
    store: RunStore
    whole: Plan  # all of the study's cells: what the store keeps of it
    chosen: list[Cell]  # those of this launch

    @property
    def plan(self) -> Plan:
        """The plan of this launch's cells."""
        chosen = {id(cell) for cell in self.chosen}
        return replace(self.whole, cells=[c for c in self.whole.cells if id(c.cell) in chosen])

    @property
    def execution(self) -> ExecutionConfig:
        return self.chosen[0].config.execution

    def planned_again(self) -> "Prepared":
        """The same cells against what the store holds now."""
        return replace(self, whole=make_plan([c.cell for c in self.whole.cells], self.store))


def prepare(
    path: Path,
    store: str | None,
    overrides: list[str],
    name: str | None = None,
    seeds: int | None = None,
    filters: Sequence[str] = (),
    retry_failed: bool = False,
) -> Prepared:
    """Read a study, expand it and plan it; writes nothing."""
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    study = load_study(path, changes, name, seeds)
    cells = [replace(cell, config=cell.config.with_absolute_paths()) for cell in expand(study)]
    run_store = RunStore(cells[0].config.execution.store)
    return Prepared(study, run_store, make_plan(cells, run_store, retry_failed), only(cells, filters))


def dry_run(prepared: Prepared, as_json: bool) -> None:
    """Print the plan."""
    plan = prepared.plan
    if as_json:
        print(json.dumps(plan.to_dict(), indent=2))
        return
    table = Table("run", "state", "cell", box=None, pad_edge=False)
    for c in plan.cells:
        table.add_row(c.run_id or "-", c.status.state, escape(str(c.cell)))
    console = make_console()
    console.print(table)
    estimate = plan.estimated_seconds()
    hours = "unknown: no finished run of this kind yet" if estimate is None else f"{estimate / 3600:.2f} device-hours"
    console.print(f"{_summary(prepared)}; {len(plan.to_compute)} to compute, estimate {hours}")
    _tell_waiting(prepared, console)


def run_study(prepared: Prepared, address: str | None, as_json: bool) -> bool:
    """Compute what has its inputs and print where the study stands. Whether every cell ended well: one that waits did not."""
    plan = prepared.plan
    if all(c.missing for c in plan.cells):
        raise UserError(f"study {prepared.study.name}: none of {len(plan.cells)} cells can run: {plan.missing_inputs[0]}")
    prepared.store.check_writable()
    console = make_console(stderr=as_json)
    started = time.perf_counter()
    todo = plan.to_compute
    _tell_replaced(prepared, console)
    if todo:
        console.print(
            f"study {prepared.study.name}: {len(plan.cells)} cells, {len(todo)} to compute, store {prepared.store.uri}"
        )
        _tell_waiting(prepared, console)
        _launch(prepared, address, console)
        prepared = prepared.planned_again()
    _record(prepared)
    if as_json:
        print(json.dumps(prepared.plan.to_dict() | {"computed": len(todo)}, indent=2))
    else:
        _show_results(prepared, console)
        _tell_waiting(prepared, console)
        computed = f"computed {len(todo)}, {time.perf_counter() - started:.1f} s" if todo else "nothing to compute"
        console.print(f"{_summary(prepared)}; {computed}")
    return all(c.status.state == "done" for c in prepared.plan.cells)


def _tell_replaced(prepared: Prepared, console: Console) -> None:
    """A study's record lists the cells of its last launch; others of the same name keep their runs but leave its tables."""
    before = prepared.store.read_study(prepared.study.name) or {"cells": []}
    gone = {c["run_id"] for c in before["cells"]} - {c.run_id for c in prepared.whole.cells} - {None}
    if gone:
        console.print(
            f"study {prepared.study.name}: {len(gone)} cells of an earlier launch are not among today's; their runs stay in "
            "the store, outside this study (--name keeps both apart)"
        )


def _tell_waiting(prepared: Prepared, console: Console) -> None:
    """What cells wait for, and the command that makes maps of a teacher that the study has trained."""
    for line, cells in itertools.islice(prepared.plan.waiting.items(), LISTED):
        console.print(f"[red]missing[/] {escape(line)} ({len(cells)} of {len(prepared.plan.cells)} cells)", highlight=False)
        if command := _export_command(prepared, cells[0].cell.config):
            console.print(f"the study has trained that teacher: {escape(command)}", highlight=False, soft_wrap=True)


def _export_command(prepared: Prepared, config: RunConfig) -> str:
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


def _record(prepared: Prepared) -> None:
    prepared.store.write_study(prepared.study.name, study_record(prepared.study, prepared.whole))


def _launch(prepared: Prepared, address: str | None, console: Console) -> None:
    """Ray is imported here: a study that is already done does not wait for it."""
    from ray import tune

    from ablations.launch import Sweep, cluster, run_sweep
    from ablations.progress import StudyProgress
    from ablations.trial import compute_cell

    todo = prepared.plan.to_compute
    configs = {c.run_id: c.cell.config.document() for c in todo}
    names = {c.run_id: str(c.cell) for c in todo}
    epochs = max(c.cell.config.optim.epochs for c in todo)
    progress = StudyProgress(console, len(todo), epochs, lambda point: names[point["run_id"]], SHOWN[0])
    with cluster(address, prepared.execution):
        _record(prepared)
        for c in todo:
            if c.status.state == "failed":
                prepared.store.run(c.run_id).write_status(replace(c.status, state="missing", cause="to be retried"))
        trainable = tune.with_parameters(compute_cell, configs=configs)
        sweep = Sweep(
            name=prepared.study.name,
            trainable=trainable,
            execution=prepared.execution,
            callback=progress,
            run_id=lambda params: params["run_id"],
            points=list(configs),
        )
        run_sweep(sweep, prepared.store)


def _show_results(prepared: Prepared, console: Console) -> None:
    """One line per cell: its numbers, or why it has none; what is missing is told once, below."""
    table = Table("cell", *SHOWN, "state", box=None, pad_edge=False)
    for c in prepared.plan.cells:
        summary = prepared.store.run(c.run_id).read_json("summary.json") if c.status.state == "done" else None
        numbers = [f"{summary['metrics'][name]:.4f}" if summary else "" for name in SHOWN]
        told = c.missing or not c.status.cause
        state = c.status.state if told else f"[red]{c.status.state}[/]: {escape(c.status.cause)}"
        table.add_row(escape(str(c.cell)), *numbers, state)
    console.print(table)
    failed = [c for c in prepared.plan.cells if c.status.state == "failed"]
    if failed:
        console.print(
            f"{len(failed)} failed; their tracebacks: {prepared.store.uri}/runs/<run>/error.txt; --retry-failed tries again"
        )


def _summary(prepared: Prepared) -> str:
    states = prepared.plan.states
    order = sorted(states, key=lambda state: (state not in FINISHED, state))
    return f"{len(prepared.plan.cells)} cells: " + ", ".join(f"{states[state]} {state}" for state in order)
