"""A study's cells, looked up in its store: what a launch works with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ablations.monitor.study_progress import CellProgress, StudyProgress, cell_progress
from ablations.planning.cells import StudyCell, expand_cells, filter_cells
from ablations.planning.launch_command import Argv, build_argv, launch_commands
from ablations.planning.plan import Plan, exclude_networks, make_plan, network_key
from ablations.planning.study import StudyConfig, load_study
from tiekd.config import ExecutionConfig, RunConfig
from tiekd.config.documents import parse_overrides
from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore

BEST_METRIC = "abs_rel"  # by which a study's best cell is told while it runs


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose cells have been looked up in its store."""

    study: StudyConfig
    store: RunStore
    whole: Plan  # all of the study's cells: what the store keeps of it
    chosen: list[StudyCell]  # those of this launch
    commands: list[Argv]  # that launched the study, this one the last
    refused: Mapping[tuple, str] = field(default_factory=dict)  # what a check said against networks, by `network_of`

    @property
    def plan(self) -> Plan:
        """The plan of this launch's cells."""
        chosen = {id(cell) for cell in self.chosen}
        return replace(self.whole, cells=[c for c in self.whole.cells if id(c.cell) in chosen])

    @property
    def execution(self) -> ExecutionConfig:
        return self.chosen[0].config.execution

    def planned_again(self) -> "PreparedStudy":
        """The same cells against what the store holds now."""
        plan = make_plan([c.cell for c in self.whole.cells], self.store)
        return replace(self, whole=exclude_networks(plan, self.refused))

    def checked(self, mistakes: Callable[[list[RunConfig]], list[str]]) -> "PreparedStudy":
        """The same, less the cells whose runs could not begin: `mistakes` says why not, asked once for each network."""
        asked = {network_key(c.cell.config): c.cell.config for c in self.plan.to_compute}
        told = zip(asked, mistakes(list(asked.values())) if asked else [], strict=True)
        refused = {network: mistake for network, mistake in told if mistake}
        return replace(self, whole=exclude_networks(self.whole, refused), refused=refused)

    def check_any_can_run(self) -> None:
        """Raise UserError where every cell waits for something."""
        plan = self.plan
        if all(c.missing for c in plan.cells):
            raise UserError(f"study {self.study.name}: none of {len(plan.cells)} cells can run: {plan.missing_inputs[0]}")

    def progress(self) -> StudyProgress:
        """The launch's runs as the store holds them, each once."""
        cells = {c.run_id or f"without inputs {i}": c for i, c in enumerate(self.plan.cells)}

        def look(record: RunRecord) -> CellProgress:
            cell = cells[record.run_id]
            return cell_progress(cell.to_dict(), record, cell.status)

        return StudyProgress(self.study.name, self.store.read_each(look, map(self.store.run, cells)), BEST_METRIC)


def prepare_study(
    path: Path,
    store: str | None,
    overrides: list[str],
    name: str | None = None,
    seeds: int | None = None,
    filters: Sequence[str] = (),
    retry_failed: bool = False,
) -> PreparedStudy:
    """Read a study, expand it and plan it; writes nothing."""
    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    study = load_study(path, changes, name, seeds)
    cells = [replace(cell, config=cell.config.with_absolute_paths()) for cell in expand_cells(study)]
    run_store = RunStore(cells[0].config.execution.store)
    command = build_argv("ablate", path, store=store, set=overrides, name=name, seeds=seeds, only=filters)
    commands = launch_commands(run_store, study.name, command)
    return PreparedStudy(study, run_store, make_plan(cells, run_store, retry_failed), filter_cells(cells, filters), commands)
