"""Tables of cells, and `tables.parquet`.

A table has the cells of one study, data set and evaluation protocol: numbers of different protocols are never in one table.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from reports.loading.collect import NO_STUDY, StoreFrames
from reports.loading.network_costs import costs_on_one_device
from reports.loading.protocols import PROTOCOL_SUMS
from reports.loading.records import StudyRecord
from reports.loading.schema import METRICS, TABLE_KEYS, TABLE_VALUES
from reports.tables.aggregates import (
    Numbers,
    References,
    difference_numbers,
    image_numbers,
    numbers_of,
    seed_numbers,
    values_by_seed,
)
from reports.tables.cells import Baselines, TableCell, group_into_cells
from reports.tables.published import published_value
from reports.tables.seed_statistics import bold_rows
from tiekd.config.labels import HIGHER_IS_BETTER, LABELS, TEACHER
from tiekd.config.report_config import Bold

TARGET_SETTINGS = ("loss.dpm", "loss.sigma", "loss.temperature", "bins.n_bins", "bins.spacing")
TEACHERS = "Teachers"  # title of the tables of teachers that belong to no study


@dataclass(frozen=True)
class Table:
    """The cells of one study, data set and protocol, in the study's order, teachers and baselines first.

    `first`: the number of cells in the tables before this one. `groups`: the rows of StoreFrames.groups of its runs. `costs`:
    the cost of networks on one device, by network. `bold`: which cells of a block are bold, see `best_of`. `also`: the rows of
    StoreFrames.protocols of its runs.
    """

    study: StudyRecord
    dataset: str
    protocol: str
    cells: tuple[TableCell, ...]
    first: int
    groups: pd.DataFrame
    costs: pd.DataFrame
    bold: Bold = "best"
    also: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=[*PROTOCOL_SUMS]))

    def anchor(self, index: int) -> str:
        """The anchor of the runs of a cell, given by its position."""
        return f"cell-{self.first + index + 1}"

    @cached_property
    def varying(self) -> list[str]:
        """Factors and settings that distinguish cells with the same labels; no setting that follows from a factor."""
        by_label: dict[tuple, list[dict]] = {}
        for cell in self.cells:
            by_label.setdefault(tuple(cell.labels.values()), []).append(cell.factors | cell.settings)
        groups = by_label.values()
        found = {path for group in groups for path in _differing(group)}
        factors = [path for path in self.factor_paths if path in found]
        settings = sorted(found.difference(factors))
        return [*factors, *(path for path in settings if not any(_determines(factor, path, groups) for factor in factors))]

    @cached_property
    def common(self) -> list[str]:
        """The labels that all cells share; in a table of teachers, not their names."""
        first, own = self.cells[0].labels, "teacher" if self.study.title == TEACHERS and not self.study.name else ""
        names = [name for name in LABELS if first[name] and name != own]
        return [name for name in names if all(cell.labels[name] == first[name] for cell in self.cells)]

    @cached_property
    def factor_paths(self) -> list[str]:
        """The study's factors, in its order."""
        return list(dict.fromkeys(path for cell in self.cells for path in cell.factors))

    @property
    def paths(self) -> list[str]:
        """The columns of tables.parquet for factors and settings of this table."""
        return list(dict.fromkeys([*self.factor_paths, *self.varying, "fidelity"]))

    def value(self, cell: TableCell, path: str) -> Any:
        """A setting or factor of a cell; None if the cell does not read it."""
        return cell.settings.get(path, cell.factors.get(path))

    @cached_property
    def shows_floor(self) -> bool:
        """Whether some cells differ in their target of L_DPM, so that its floor may explain their results."""
        targets = ({path: cell.settings.get(path) for path in TARGET_SETTINGS} for cell in self.cells if cell.target_floor >= 0)
        return bool(_differing(list(targets)))

    @cached_property
    def baselines(self) -> list[int | None]:
        """The position of each cell's baseline."""
        found = Baselines(self.cells)
        return [found.of(index) for index in range(len(self.cells))]

    @cached_property
    def by_seed(self) -> np.ndarray:
        """The metrics of finished runs, [cells, metrics, seeds]; NaN elsewhere."""
        return values_by_seed(self.cells)

    def compared(self, references: References) -> Numbers:
        """The difference between each cell and its reference, over seeds and over images; NaN where the reference is None."""
        return difference_numbers(self.by_seed, references) | image_numbers(self.cells, references, self.groups)

    @cached_property
    def results(self) -> pd.DataFrame:
        """The rows of tables.parquet, indexed by (position of the cell, metric); see `tables_frame` for the columns."""
        index = pd.MultiIndex.from_product([range(len(self.cells)), METRICS], names=["cell", "metric"])
        shared = pd.DataFrame([self._shared(cell) for cell in self.cells], dtype=object)
        shared = shared.assign(**self.costs.reindex([cell.network for cell in self.cells]).reset_index(drop=True))
        frame = shared.loc[shared.index.repeat(len(METRICS))].set_index(index)
        numbers = {name: array.ravel() for name, array in self.numbers.items()}
        return frame.assign(metric=index.get_level_values("metric"), **numbers)

    @cached_property
    def numbers(self) -> Numbers:
        """The statistics of each cell and metric, [cells, metrics], by column of tables.parquet."""
        published = [[published_value(cell.labels, self.protocol, m) or np.nan for m in METRICS] for cell in self.cells]
        numbers = seed_numbers(self.by_seed) | {"published": np.array(published, dtype=float)}
        numbers |= {"difference": numbers["mean"] - numbers["published"]} | self.compared(self.baselines)
        return numbers | (self._sequential_numbers() if self.study.sequential else {})

    @cached_property
    def sequential(self) -> dict[int, dict[str, Any]]:
        """The tests of a study with seeds until decided, by the position of the cell."""
        by_run = {run_id: row for row in self.study.sequential.get("rows", ()) for run_id in row["run_ids"] if run_id}
        found = (
            (index, next((by_run[run] for run in cell.run_ids if run in by_run), None)) for index, cell in enumerate(self.cells)
        )
        return {index: row for index, row in found if row}

    def _sequential_numbers(self) -> Numbers:
        """The columns of the test against the baseline, from the looks; tests with a fixed number of seeds do not apply."""
        names = {"p_value": "", "p_holm": "p", "baseline_ci_low": "low", "baseline_ci_high": "high"}
        columns = {name: np.full((len(self.cells), len(METRICS)), np.nan) for name in names}
        metric = METRICS.index(self.study.sequential["rule"]["metric"])
        for index, row in self.sequential.items():
            for name, key in names.items():
                columns[name][index, metric] = np.nan if row.get(key) is None else row[key]
        return columns

    def result(self, index: int, metric: str) -> dict[str, float]:
        """The statistics of a cell's metric, by column of tables.parquet."""
        return numbers_of(self.numbers, index, metric)

    def number_of(self, index: int, metric: str, column: str) -> float:
        """One statistic of a cell's metric, by its column of tables.parquet."""
        return self.numbers[column][index, METRICS.index(metric)]

    @cached_property
    def blocks(self) -> list[list[int]]:
        """The cells that compete for the best value: the students of each backbone. Trials of a search do not compete."""
        found: dict[str, list[int]] = {}
        for index, cell in enumerate(self.cells):
            if cell.labels["method"] != TEACHER and not self.study.is_search:
                found.setdefault(cell.labels["backbone"], []).append(index)
        return list(found.values())

    @cached_property
    def best(self) -> dict[str, frozenset[int]]:
        """The best cells of each block by metric; see `best_of`."""
        return {metric: frozenset(n for block in self.blocks for n in self.best_of(block, metric)) for metric in METRICS}

    def best_of(self, block: Sequence[int], metric: str) -> list[int]:
        """The cells of a block that are set in bold: the best mean, or with `tested` all that are not significantly worse."""
        values = self.by_seed[list(block), METRICS.index(metric)]
        chosen = bold_rows(values, metric in HIGHER_IS_BETTER, self.bold)
        return [index for index, bold in zip(block, chosen, strict=True) if bold]

    def _shared(self, cell: TableCell) -> dict:
        """The columns that all rows of a cell share."""
        return {
            "table": self.study.name,
            **cell.labels,
            **{path: self.value(cell, path) for path in self.paths},
            "protocol": self.protocol,
            "state": cell.state,
            "run_ids": cell.run_ids,
            "n_planned": len(cell.runs),
            "target_floor": cell.target_floor,
            "detail": cell.detail,
        }


def build_tables(collected: StoreFrames, bold: Bold = "best") -> list[Table]:
    """Build every table of a store; runs whose config cannot be read are in none. `bold`: see `Table.best_of`.

    Teachers outside all studies have tables of their own.
    """
    runs = collected.runs.join(collected.identities)
    runs = runs.loc[runs["settings"].notna()]
    costs = costs_on_one_device(collected.costs)
    tables, first = [], 0
    teachers = (runs["study"] == NO_STUDY) & (runs["method"] == TEACHER)
    for key, part in runs.groupby(["study", teachers.rename("teachers"), "dataset", "protocol"], sort=False):
        (name, dataset, protocol), are_teachers = (str(key[0]), str(key[2]), str(key[3])), key[1]
        cells = tuple(group_into_cells(part))
        groups, also = (frame.loc[frame["run_id"].isin(part["run_id"])] for frame in (collected.groups, collected.protocols))
        study = collected.studies.get(name, StudyRecord(name, TEACHERS if are_teachers else ""))
        tables.append(Table(study, dataset, protocol, cells, first, groups, costs, bold, also))
        first += len(cells)
    return tables


def _determines(factor: str, path: str, groups: Collection[list[dict]]) -> bool:
    """Whether a factor determines a setting: in every group, cells with the same level agree on it."""
    by_level: dict[tuple, set[str]] = {}
    for index, group in enumerate(groups):
        for cell in group:
            by_level.setdefault((index, json.dumps(cell.get(factor))), set()).add(json.dumps(cell.get(path)))
    return all(len(values) == 1 for values in by_level.values())


def _differing(cells: list[dict]) -> set[str]:
    paths = {path for cell in cells for path in cell}
    return {path for path in paths if any(_other(cell.get(path), cells[0].get(path)) for cell in cells)}


def _other(value: Any, first: Any) -> bool:
    """Whether two values differ; unlike in Python, True differs from 1."""
    return value is not first and (type(value) is not type(first) or value != first)


def tables_frame(tables: Iterable[Table]) -> pd.DataFrame:
    """`tables.parquet`: one row per cell and metric.

    state is "done" if every seed is; mean and std are over the n_seeds finished of n_planned seeds, and `detail` lists the
    others. difference is mean - published. baseline_difference is the mean over seeds of cell - baseline, p_value its sign-flip
    test, and p_holm the same corrected over the rows of the table.

    target_floor is the abs_rel of a perfect student of L_DPM with respect to the teacher (tiekd/distill/target_floor.py).

    Intervals are 95 %: ci_ over seeds (Student's t), images_ci_ over test images (bootstrap of n_groups drives or scenes); with
    the prefix baseline_, of the difference from the baseline. Costs of the cell's network: parameters and macs
    (multiply-accumulates per image) as counts, milliseconds per image and peak_bytes on `device`.
    """
    tables = list(tables)
    paths = list(dict.fromkeys(path for t in tables for path in t.paths))
    columns = [*TABLE_KEYS, *paths, *TABLE_VALUES]
    parts = [table.results.reindex(columns=columns) for table in tables]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return frame.assign(**{path: _one_type(frame[path]) for path in paths}).infer_objects()


def _one_type(values: pd.Series) -> pd.Series:
    """A column of a factor: numbers if all its values are numbers, else text."""
    present = values.dropna()
    if len(present) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        return pd.to_numeric(values)
    return values.map(lambda v: v if isinstance(v, str) else json.dumps(v), na_action="ignore").astype("string")
