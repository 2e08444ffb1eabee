"""Which cells of a study with `seeds: {until: decided}` its results ask for so far, and how its rows are decided."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.planning.cells import StudyCell
from ablations.planning.plan import PlannedCell
from ablations.planning.seeds import SeedsConfig
from ablations.planning.sequential import RowTest, look_at_rows
from ablations.planning.study import StudyConfig
from tiekd.config.labels import BASELINE, TEACHER
from tiekd.errors import UserError
from tiekd.store.run_store import RunRecord, RunStore

Row = str  # the factors of a cell as JSON


@dataclass(frozen=True)
class SequentialPlan:
    """The tests of rows by their factors, and how many seeds each row of the study has, tested or not."""

    config: SeedsConfig
    tests: Mapping[Row, RowTest]
    n_seeds: Mapping[Row, int]
    run_ids: Mapping[Row, Sequence[str | None]]  # of all seeds that a tested row may get

    def includes(self, cell: StudyCell) -> bool:
        """Whether the results so far ask for a cell."""
        return cell.config.seed < self.n_seeds[_row(cell)]

    def to_dict(self) -> dict[str, Any]:
        rows = [
            {"factors": json.loads(row), "run_ids": self.run_ids[row][: test.n_seeds], **test.to_dict()}
            for row, test in self.tests.items()
        ]
        return {"rule": self.config.model_dump(mode="json"), "rows": rows}


def sequential_plan(study: StudyConfig, planned: Sequence[PlannedCell], store: RunStore) -> SequentialPlan:
    """Test the rows with the results that the store has. Raises UserError if a row has several baselines.

    Teachers and other rows without a baseline have the first seeds only; a baseline has as many as its rows.
    """
    config = study.seeds
    assert isinstance(config, SeedsConfig)
    rows: dict[Row, list[PlannedCell]] = {}
    for cell in planned:
        rows.setdefault(_row(cell.cell), []).append(cell)
    baselines = {row: _baseline(row, rows) for row in rows}
    values = _values(planned, store, config.metric)
    differences = {}
    for row, baseline in baselines.items():
        if baseline is not None:
            pairs = zip(_in_order(rows[row], values), _in_order(rows[baseline], values), strict=False)
            differences[row] = [ours - theirs for ours, theirs in pairs]
    tests = look_at_rows(differences, config)
    n_seeds = {row: max(config.min, tests[row].n_seeds if row in tests else 0) for row in rows}
    for row, baseline in baselines.items():
        if baseline is not None:
            n_seeds[baseline] = max(n_seeds[baseline], n_seeds[row])
    return SequentialPlan(config, tests, n_seeds, {row: [c.run_id for c in rows[row]] for row in tests})


def _row(cell: StudyCell) -> Row:
    return json.dumps(cell.factors)


def _baseline(row: Row, rows: Mapping[Row, Sequence[PlannedCell]]) -> Row | None:
    """The row that a row is compared with; None for teachers and baselines."""
    labels = rows[row][0].cell.labels
    if labels["method"] in (BASELINE, TEACHER):
        return None
    found = [other for other, cells in rows.items() if _is_baseline(cells[0].cell.labels, labels)]
    if len(found) != 1:
        raise UserError(
            f"seeds: until decided needs one Baseline of {labels['backbone']} on {labels['dataset']} in the study, "
            f"got {len(found)}"
        )
    return found[0]


def _is_baseline(labels: Mapping[str, str], of: Mapping[str, str]) -> bool:
    return labels["method"] == BASELINE and all(labels[name] == of[name] for name in ("dataset", "backbone"))


def _values(planned: Sequence[PlannedCell], store: RunStore, metric: str) -> dict[str, float]:
    """The metric of each ended run by id; NaN for a run that ended without a result."""
    ended = [c for c in planned if c.run_id and c.status.state in ("done", "failed", "diverged", "constant")]
    records = {str(c.run_id): store.run(str(c.run_id)) for c in ended if c.status.state == "done"}
    found = store.read_each(RunRecord.metrics, records.values())
    values = {run_id: _number(metrics.get(metric)) for run_id, metrics in zip(records, found, strict=True)}
    return {str(c.run_id): values.get(str(c.run_id), math.nan) for c in ended}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _in_order(cells: Sequence[PlannedCell], values: Mapping[str, float]) -> list[float]:
    """The values of a row's seeds 0, 1, ... up to the first that has not ended."""
    found: list[float] = []
    for cell in cells:
        if cell.run_id is None or cell.run_id not in values:
            break
        found.append(values[cell.run_id])
    return found
