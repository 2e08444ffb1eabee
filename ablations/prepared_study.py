"""A study before Ray starts: its cells, and what the store has of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.monitor.study_progress import CellProgress, StudyProgress, cell_progress
from ablations.planning.cells import StudyCell, choose_shard, expand_cells, filter_cells
from ablations.planning.launch_command import Argv, build_argv, launch_commands
from ablations.planning.plan import NetworkKey, Plan, make_plan, network_key
from ablations.planning.study import StudyConfig, load_study
from tiekd.config import ExecutionConfig, RunConfig
from tiekd.config.documents import parse_overrides
from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore

if TYPE_CHECKING:
    from ablations.planning.sequential_plan import SequentialPlan

BEST_METRIC = "abs_rel"  # by which the progress display chooses the best cell


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose cells have been looked up in its store."""

    study: StudyConfig
    store: RunStore
    full_plan: Plan  # all cells of the study, which the store records; with seeds until decided, those asked for so far
    selected: list[StudyCell]  # the cells of this launch
    commands: list[Argv]  # that launched the study; the last is this launch
    network_errors: Mapping[NetworkKey, str] = field(default_factory=dict)  # networks whose runs cannot begin, and why
    all_cells: list[StudyCell] = field(default_factory=list)  # with all seeds that rows may need
    sequential: "SequentialPlan | None" = None  # of a study with seeds until decided

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
        cells = self.all_cells or [c.cell for c in self.full_plan.cells]
        plan, sequential = _asked_for(self.study, make_plan(cells, self.store), self.store)
        return replace(self, full_plan=plan.exclude(self.network_errors), sequential=sequential)

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


def _asked_for(study: StudyConfig, plan: Plan, store: RunStore) -> "tuple[Plan, SequentialPlan | None]":
    """Return the plan of the cells that the results so far ask for: all, unless the study adds seeds until rows are decided."""
    if isinstance(study.seeds, list):
        return plan, None
    from ablations.planning.sequential_plan import sequential_plan  # imports SciPy

    sequential = sequential_plan(study, plan.cells, store)
    cells = [c for c in plan.cells if sequential.includes(c.cell)]
    return replace(plan, cells=cells, study_cells=cells), sequential


def prepare_study(
    study: str | Path | StudyConfig,
    store: str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    name: str | None = None,
    seeds: int | None = None,
    only: Sequence[str] = (),
    retry_failed: bool = False,
    until_decided: bool = False,
    shard: str | None = None,
) -> PreparedStudy:
    """Read a study, expand it and look its cells up in the store. Writes nothing. Raises UserError for an invalid study."""
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    loaded = load_study(study, changes, name, seeds, until_decided)
    cells = [replace(cell, config=cell.config.with_absolute_paths()) for cell in expand_cells(loaded)]
    run_store = RunStore(cells[0].config.execution.store)
    run_store.check_study_name(loaded.name)
    if isinstance(study, StudyConfig):  # no command can launch it
        commands = launch_commands(run_store, loaded.name)
    else:
        options: dict[str, object] = {"store": store, "set": overrides, "name": name, "seeds": seeds, "only": only}
        command = build_argv("ablate", study, **options, until_decided=until_decided, shard=shard)
        commands = launch_commands(run_store, loaded.name, command)
    plan, sequential = _asked_for(loaded, make_plan(cells, run_store, retry_failed), run_store)
    selected = choose_shard(filter_cells(cells, only), shard)
    return PreparedStudy(loaded, run_store, plan, selected, commands, all_cells=cells, sequential=sequential)
