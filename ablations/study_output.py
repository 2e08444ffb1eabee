"""What `tiekd ablate` prints: the plan of a dry run, missing inputs, and the results of a launch."""

import itertools
import json
import math
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablations.execution import check_variables
from ablations.monitor.study_progress import StudyProgress
from ablations.monitor.terminal import failure_lines
from ablations.planning.plan import Plan, PlannedCell, readiness_errors
from ablations.planning.resources import Node, fit, summary, this_machine, trial_slots, unused_gpus
from ablations.prepared_study import PreparedStudy
from tiekd.cli.console import make_console
from tiekd.config import ExecutionConfig
from tiekd.distill.remarks import remarks
from tiekd.errors import UserError
from tiekd.store.files import json_text
from tiekd.store.run_status import FINISHED

TABLE_METRICS = ("abs_rel", "rmse", "delta1")
MAX_LISTED = 12  # missing inputs


def print_plan(prepared: PreparedStudy, address: str | None, as_json: bool, max_concurrent: int | None = None) -> None:
    """Print the plan, and an estimate of its cost on the cluster at `address` or on this machine.

    `max_concurrent` limits the cells that are computed at the same time.
    """
    prepared = prepared.check_networks(readiness_errors)
    plan = prepared.plan
    execution, resources = _resources(prepared, address, max_concurrent)
    devices = resources.slots * execution.workers
    if as_json:
        document = plan.to_dict() | {"execution": execution.model_dump(mode="json"), "resources": resources.lines}
        document |= {"estimate": plan.estimate().to_dict(devices), "remark": print_remarks(prepared, make_console(stderr=True))}
        print(json_text(document, indent=2))
        return
    console = make_console()
    console.print(_plan_table(plan))
    unmade = plan.maps_to_make
    make = f", {unmade[0] if len(unmade) == 1 else f'maps of {len(unmade)} teachers'} to make" if unmade else ""
    estimate = plan.estimate().summary(devices)
    console.print(
        f"{count_states(prepared)}; {len(plan.to_compute)} to compute{make}, estimate {estimate}",
        soft_wrap=True,
    )
    resources.print(console)
    print_remarks(prepared, console)
    print_missing_inputs(prepared, console)
    print_unread_factors(prepared, console)


def _plan_table(plan: Plan) -> Table:
    """The graph of a launch: the runs of teachers, maps, and cells, each with what it waits for."""
    waits = {maps.maps_id: maps for maps in plan.maps_to_make}
    todo = {c.run_id for c in plan.to_compute}
    table = Table("run", "state", "cell", *(["begins after"] if waits else []), box=None, pad_edge=False)

    def add(key: str | None, state: str, name: str, after: str | None) -> None:
        table.add_row(key or "-", state, name, *([after or ""] if waits else []))

    def maps_of(planned: PlannedCell) -> str | None:
        return planned.maps_id if planned.run_id in todo and planned.maps_id in waits else None

    own = {c.run_id for c in plan.cells}
    for planned in plan.to_compute:
        if planned.run_id not in own:
            add(planned.run_id, planned.status.state, str(planned.cell), maps_of(planned))
    for maps in waits.values():
        add(maps.maps_id, "missing", f"{maps}, {maps.n_frames} frames", maps.run_id if maps.run_id in todo else None)
    for planned in plan.cells:
        add(planned.run_id, planned.status.state, str(planned.cell), maps_of(planned))
    return table


def print_remarks(prepared: PreparedStudy, console: Console, said: str = "") -> str:
    """Print the remarks on the cells, such as the floor of a target of L_DPM, except those in `said`, and return them."""
    lines = remarks(c.cell.config for c in prepared.plan.cells if c.run_id).splitlines()
    for line in lines:
        if line not in said:
            console.print(line, soft_wrap=True)
    return "\n".join(lines)


def _resources(
    prepared: PreparedStudy, address: str | None, max_concurrent: int | None
) -> tuple[ExecutionConfig, "LaunchResources"]:
    """Return what the trials would get on the cluster at `address`, or on this machine."""
    if address:
        check_variables()
        from ablations.execution.cluster import cluster_nodes, ray_cluster

        with ray_cluster(address, prepared.execution) as execution:
            return execution, LaunchResources.of(execution, cluster_nodes(), address, max_concurrent)
    nodes = [this_machine()]
    try:
        execution = fit(prepared.execution, nodes)
    except UserError as error:
        return prepared.execution.on_this_machine(), LaunchResources(0, [f"not on this machine: {error}"])
    return execution, LaunchResources.of(execution, nodes, address, max_concurrent)


@dataclass(frozen=True)
class LaunchResources:
    """How many trials can run at the same time, and lines that say what each gets and which GPUs stay idle."""

    slots: int
    lines: list[str]

    @classmethod
    def of(
        cls, execution: ExecutionConfig, nodes: list[Node], address: str | None, max_concurrent: int | None
    ) -> "LaunchResources":
        slots = int(min(trial_slots(execution, nodes), max_concurrent or math.inf))
        unused = unused_gpus(execution, nodes, local=not address)
        return cls(slots, [summary(execution, slots), *([unused] if unused else [])])

    def print(self, console: Console) -> None:
        for line in self.lines:
            console.print(line, soft_wrap=True)


def print_missing_inputs(prepared: PreparedStudy, console: Console) -> None:
    """Print the missing inputs."""
    for line, cells in itertools.islice(prepared.plan.cells_by_missing_input.items(), MAX_LISTED):
        console.print(Text.assemble(("missing", "red"), f" {line} ({len(cells)} of {len(prepared.plan.cells)} cells)"))


def print_unread_factors(prepared: PreparedStudy, console: Console) -> None:
    """Tell of factors that no run reads, such as loss.sigma with a loss that has none."""
    for name in prepared.plan.unread_factors:
        console.print(f"factor {name}: no run of this study reads it; its levels are one and the same run")


def print_study_results(prepared: PreparedStudy, progress: StudyProgress, console: Console) -> None:
    """Print one line per cell: its metrics, or why it has none. Missing inputs are printed separately."""
    metrics_of = {c.run_id: c.metrics for c in progress.cells}
    table = Table("cell", *TABLE_METRICS, "state", box=None, pad_edge=False)
    for c in prepared.plan.cells:
        metrics = metrics_of.get(c.run_id or "")
        numbers = [f"{metrics[name]:.4f}" if metrics else "" for name in TABLE_METRICS]
        explained = c.status.cause and not c.missing
        state = Text.assemble((c.status.state, "red"), f": {c.status.cause}") if explained else c.status.state
        table.add_row(str(c.cell), *numbers, state)
    console.print(table)
    if failures := progress.failures:
        for line in failure_lines(failures):
            console.print(line, soft_wrap=True)
        console.print("use --retry-failed to compute failed cells again")


def print_decisions(prepared: PreparedStudy, console: Console) -> None:
    """Print how the rows of a study with seeds until decided stand."""
    if prepared.sequential is None:
        return
    config = prepared.sequential.config
    table = Table("row", "seeds", f"{config.metric} - Baseline", "interval", "p", "decision", box=None, pad_edge=False)
    for row, test in prepared.sequential.tests.items():
        name = ", ".join(f"{key}={value}" for key, value in json.loads(row).items()) or "base"
        known = not math.isnan(test.p)
        numbers = [f"{test.difference:+.4f}", f"[{test.low:+.4f}, {test.high:+.4f}]", f"{test.p:.3f}"] if known else [""] * 3
        table.add_row(name, str(test.n_seeds), *numbers, test.state)
    console.print(table)


def count_states(prepared: PreparedStudy) -> str:
    counts = prepared.plan.state_counts
    order = sorted(counts, key=lambda state: (state not in FINISHED, state))
    return f"{len(prepared.plan.cells)} cells: " + ", ".join(f"{counts[state]} {state}" for state in order)
