"""A study before Ray starts: its cells, and what the store has of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablations.monitor.study_progress import CellProgress, StudyProgress, cell_progress
from ablations.planning.cells import StudyCell, expand_cells, filter_cells
from ablations.planning.launch_command import Argv, build_argv, launch_commands
from ablations.planning.plan import NetworkKey, Plan, make_plan, network_key
from ablations.planning.study import StudyConfig, load_study
from tiekd.config import ExecutionConfig, RunConfig
from tiekd.config.documents import parse_overrides
from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore

BEST_METRIC = "abs_rel"  # by which the progress display chooses the best cell


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose cells have been looked up in its store."""

    study: StudyConfig
    store: RunStore
    full_plan: Plan  # all cells of the study, which the store records
    selected: list[StudyCell]  # the cells of this launch
    commands: list[Argv]  # that launched the study; the last is this launch
    network_errors: Mapping[NetworkKey, str] = field(default_factory=dict)  # networks whose runs cannot begin, and why

    @property
    def plan(self) -> Plan:
        """The plan of the selected cells."""
        selected = {id(cell) for cell in self.selected}
        return replace(self.full_plan, cells=[c for c in self.full_plan.cells if id(c.cell) in selected])

    @property
    def execution(self) -> ExecutionConfig:
        return self.selected[0].config.execution

    def refreshed(self) -> "PreparedStudy":
        """Return the same cells with their current states in the store."""
        plan = make_plan([c.cell for c in self.full_plan.cells], self.store)
        return replace(self, full_plan=plan.exclude(self.network_errors))

    def check_networks(self, check: Callable[[list[RunConfig]], list[str]]) -> "PreparedStudy":
        """Return the study without the cells whose runs cannot begin.

        `check` gets one config per network and returns, for each, why its run cannot begin, or "".
        """
        configs = {network_key(c.cell.config): c.cell.config for c in self.plan.to_compute}
        found = check(list(configs.values())) if configs else []
        errors = {network: error for network, error in zip(configs, found, strict=True) if error}
        return replace(self, full_plan=self.full_plan.exclude(errors), network_errors=errors)

    def check_any_can_run(self) -> None:
        """Raise UserError if every cell lacks something."""
        plan = self.plan
        if all(c.missing for c in plan.cells):
            raise UserError(f"study {self.study.name}: none of {len(plan.cells)} cells can run: {plan.missing_inputs[0]}")

    def progress(self) -> StudyProgress:
        """Return the progress of the selected cells' runs as the store has it; cells with the same run count once."""
        cells = {c.run_id or f"without inputs {i}": c for i, c in enumerate(self.plan.cells)}

        def look_up(record: RunRecord) -> CellProgress:
            cell = cells[record.run_id]
            return cell_progress(cell.to_dict(), record, cell.status)

        return StudyProgress(self.study.name, self.store.read_each(look_up, map(self.store.run, cells)), BEST_METRIC)


def prepare_study(
    study: str | Path | StudyConfig,
    store: str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    name: str | None = None,
    seeds: int | None = None,
    only: Sequence[str] = (),
    retry_failed: bool = False,
) -> PreparedStudy:
    """Read a study, expand it and look its cells up in the store. Writes nothing. Raises UserError for an invalid study."""
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    loaded = load_study(study, changes, name, seeds)
    cells = [replace(cell, config=cell.config.with_absolute_paths()) for cell in expand_cells(loaded)]
    run_store = RunStore(cells[0].config.execution.store)
    if isinstance(study, StudyConfig):  # no command can launch it
        commands = launch_commands(run_store, loaded.name)
    else:
        command = build_argv("ablate", study, store=store, set=overrides, name=name, seeds=seeds, only=only)
        commands = launch_commands(run_store, loaded.name, command)
    plan = make_plan(cells, run_store, retry_failed)
    return PreparedStudy(loaded, run_store, plan, filter_cells(cells, only), commands)
