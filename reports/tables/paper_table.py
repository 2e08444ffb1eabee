"""The table of one or several studies as a paper prints it: rows by labels, data sets or other values side by side."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reports.loading.schema import METRICS
from reports.tables.aggregates import values_by_seed
from reports.tables.cells import FIRST, TableCell
from reports.tables.seed_statistics import bold_rows, summarize_seeds
from reports.tables.table import Table
from tiekd.config.labels import HIGHER_IS_BETTER, LABELS, TEACHER
from tiekd.config.report_config import ReportConfig
from tiekd.errors import UserError, unknown

ROW_LABELS = ("dataset", "teacher", "method", "loss", "backbone")
Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class PaperColumn:
    """Numbers side by side: those of one value of `ReportConfig.columns` under one protocol."""

    value: Hashable
    protocol: str


@dataclass(frozen=True)
class PaperNumber:
    """One metric of a cell over its finished seeds. spread is NaN for a single seed, or if none is shown."""

    mean: float
    spread: float
    bold: bool


@dataclass(frozen=True)
class PaperTable:
    """Rows by position; `places` has the cell of each row and column, as far as the studies have one.

    `rules` are the rows before which a line is drawn: teachers, baselines, and each value of the first row label.
    """

    config: ReportConfig
    tables: tuple[Table, ...]
    row_names: tuple[str, ...]
    columns: tuple[PaperColumn, ...]
    rows: tuple[Key, ...]
    rules: frozenset[int]
    places: dict[tuple[int, int], TableCell]
    anchors: dict[tuple[int, int], str]  # of the runs of each place

    def number(self, row: int, column: int, metric: str) -> PaperNumber | None:
        """A number of the table; None without a cell or a finished run."""
        return self._numbers.get((row, column, metric))

    @cached_property
    def _numbers(self) -> dict[tuple[int, int, str], PaperNumber]:
        done = {place: cell for place, cell in self.places.items() if cell.done}
        values = values_by_seed(list(done.values()))
        found = summarize_seeds(values)
        half = (found.ci_high - found.ci_low) / 2
        spread = {"std": found.std, "ci": half, "none": np.full_like(half, np.nan)}[self.config.spread]
        position = {place: number for number, place in enumerate(done)}
        bold = np.zeros(found.mean.shape, dtype=bool)
        for block in self._blocks(done):
            places = [position[place] for place in block]
            for m, metric in enumerate(METRICS):
                bold[places, m] = bold_rows(values[places, m], metric in HIGHER_IS_BETTER, self.config.bold, self.config.digits)
        return {
            (*place, metric): PaperNumber(found.mean[number, m], spread[number, m], bool(bold[number, m]))
            for place, number in position.items()
            for m, metric in enumerate(METRICS)
        }

    def _blocks(self, done: dict[tuple[int, int], TableCell]) -> Iterable[list[tuple[int, int]]]:
        """The places that compete for the best value: the students of one backbone in one column."""
        found: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for (row, column), cell in done.items():
            if cell.labels["method"] != TEACHER:
                found.setdefault((column, cell.labels["backbone"]), []).append((row, column))
        return found.values()


def paper_table(tables: Sequence[Table], config: ReportConfig) -> PaperTable:
    """Arrange the cells of tables. Raises UserError for unknown names, and if rows and columns do not tell cells apart."""
    chosen = [(table, cell) for table in tables for cell in table.cells if _is_chosen(table, cell, config)]
    if not chosen:
        raise UserError(f"no cell of the studies has {_listed(config.only)}" if config.only else "the studies have no cells")
    for name in (*config.rows, config.columns, *config.only):
        _check_name(name, chosen)
    row_names = config.rows or _varying(chosen, config.columns)
    columns = list(dict.fromkeys(PaperColumn(_value(t, c, config.columns), t.protocol) for t, c in chosen))
    cells: dict[Key, dict[int, tuple[Table, TableCell]]] = {}
    block_of: dict[Key, Key] = {}
    for table, cell in chosen:
        key = tuple(_value(table, cell, name) for name in row_names)
        column = columns.index(PaperColumn(_value(table, cell, config.columns), table.protocol))
        other = cells.setdefault(key, {}).setdefault(column, (table, cell))
        if other[1].run_ids != cell.run_ids:  # a run of two studies is one cell
            raise UserError(_ambiguous((table, cell), other, dict(zip(row_names, key, strict=True))))
        block_of.setdefault(key, _block(cell, key, row_names))
    order = {block: number for number, block in enumerate(dict.fromkeys(block_of.values()))}
    rows = sorted(cells, key=lambda key: (_rank(block_of[key]), order[block_of[key]]))
    rules = frozenset(n for n in range(1, len(rows)) if block_of[rows[n]] != block_of[rows[n - 1]])
    found = {(n, column): place for n, key in enumerate(rows) for column, place in cells[key].items()}
    places = {at: cell for at, (_, cell) in found.items()}
    anchor_of = {id(cell): table.anchor(index) for table in tables for index, cell in enumerate(table.cells)}
    anchors = {at: anchor_of[id(cell)] for at, cell in places.items()}
    return PaperTable(config, tuple(tables), tuple(row_names), tuple(columns), tuple(rows), rules, places, anchors)


def _value(table: Table, cell: TableCell, name: str) -> Hashable:
    value = cell.labels[name] if name in cell.labels else table.value(cell, name)
    return tuple(value) if isinstance(value, list) else value


def _is_chosen(table: Table, cell: TableCell, config: ReportConfig) -> bool:
    return all(str(_value(table, cell, name)) in values for name, values in config.only.items())


def _check_name(name: str, chosen: Sequence[tuple[Table, TableCell]]) -> None:
    known = {*LABELS, *(path for table, cell in chosen for path in (*cell.settings, *table.factor_paths))}
    if name not in known:
        raise UserError(unknown("report: label or setting", name, known))


def _varying(chosen: Sequence[tuple[Table, TableCell]], columns: str) -> tuple[str, ...]:
    """The labels and settings that tell cells apart, except what stands side by side."""
    labels = [name for name in ROW_LABELS if len({cell.labels[name] for _, cell in chosen}) > 1]
    settings = dict.fromkeys(path for table, _ in chosen for path in table.varying)
    return tuple(name for name in (*labels, *settings) if name != columns) or ("method",)


def _block(cell: TableCell, key: Key, row_names: Sequence[str]) -> Key:
    """What rows between two lines share: teachers, baselines, or the value of the first row label."""
    method = cell.labels["method"]
    return (method,) if row_names[0] == "teacher" and method in FIRST else (None, key[0])


def _rank(block: Key) -> int:
    return FIRST.index(str(block[0])) if block[0] in FIRST else len(FIRST)


def _ambiguous(a: tuple[Table, TableCell], b: tuple[Table, TableCell], row: dict[str, Hashable]) -> str:
    """Why two cells cannot stand at one place."""
    paths = sorted({*a[1].settings, *b[1].settings, *LABELS, "study"})
    differing = [path for path in paths if _trait(*a, path) != _trait(*b, path)]
    return (
        f"report: several cells are {_listed(row)}; they differ in {', '.join(differing[:5]) or 'their inputs'}: "
        "add one of these to --rows, or choose with --only"
    )


def _trait(table: Table, cell: TableCell, path: str) -> Hashable:
    return table.study.name if path == "study" else _value(table, cell, path)


def _listed(values: dict) -> str:
    return ", ".join(f"{name} {'/'.join(v) if isinstance(v, tuple) else v or '-'}" for name, v in values.items())
