"""The factors that a study varies: one at a time, and grids of two."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TypeGuard

from reports.tables.formatting import cell_name
from reports.tables.table import Table
from tiekd.config import build
from tiekd.config.documents import flatten
from tiekd.config.labels import TEACHER
from tiekd.errors import UserError

Trait = Callable[[int], Hashable]  # of a cell, by its position


@dataclass(frozen=True)
class FactorBlock:
    """Cells, by position, that differ in one factor; `base` is the cell of the study's base."""

    factor: str
    base: int
    cells: tuple[int, ...]


@dataclass(frozen=True)
class FactorGrid:
    """Cells by two factors or labels; everything else is equal, and `context` names it.

    A place holds the positions of its cells: it is absent if no cell was planned, and has several if only inputs differ.
    """

    row_name: str
    column_name: str
    context: str
    rows: tuple[Hashable, ...]
    columns: tuple[Hashable, ...]
    places: dict[tuple[Hashable, Hashable], tuple[int, ...]]

    @property
    def compares(self) -> bool:
        """Whether at least two rows have several columns; a study of one factor at a time fills one row and one column."""
        return sum(n > 1 for n in Counter(row for row, _ in self.places).values()) > 1


def numeric_factors(table: Table) -> Iterator[str]:
    """Factors that vary and are numeric in every cell that reads them."""
    for path in table.varying:
        values = {table.value(cell, path) for cell in table.cells} - {None}
        if len(values) > 1 and all(_is_number(value) for value in values):
            yield path


def one_factor_blocks(table: Table) -> list[FactorBlock]:
    """One block per factor around the study's base; none if no cell is the base, as in a search."""
    base = None if table.study.is_search else _base(table)
    if base is None:
        return []
    blocks = []
    for factor in table.factor_paths:
        others = [path for path in table.factor_paths if path != factor]
        rest = [[table.value(cell, path) for path in others] for cell in table.cells]
        found = [index for index, values in enumerate(rest) if values == rest[base]]
        if len(found) > 1:
            blocks.append(FactorBlock(factor, base, _in_order(found, [table.value(table.cells[n], factor) for n in found])))
    return blocks


def _base(table: Table) -> int | None:
    """The position of the cell whose factors equal the study's base; a factor with named levels has no base value."""
    if table.study.document.get("vary") == "one_at_a_time":
        return next((index for index, cell in enumerate(table.cells) if not cell.factors), None)
    try:
        base = flatten(build(table.study.document.get("base") or {}).document())
    except UserError:
        return None
    if not table.factor_paths or not base.keys() >= set(table.factor_paths):
        return None
    wanted = [base[path] for path in table.factor_paths]
    found = ([table.value(cell, path) for path in table.factor_paths] for cell in table.cells)
    return next((index for index, values in enumerate(found) if values == wanted), None)


def numeric_grids(table: Table) -> list[FactorGrid]:
    """Grids of every two numeric factors that vary together, one per setting of the others."""
    if table.study.is_search:
        return []
    return [grid for a, b in combinations(numeric_factors(table), 2) for grid in _grids(table, a, b) if grid.compares]


def _grids(table: Table, row: str, column: str) -> Iterator[FactorGrid]:
    contexts: dict[str, list[int]] = {}
    for index, cell in enumerate(table.cells):
        if None not in (table.value(cell, row), table.value(cell, column)):
            contexts.setdefault(cell_name(table, cell, without=(row, column)), []).append(index)
    for context, indices in contexts.items():
        row_of, column_of = (lambda n, path=path: table.value(table.cells[n], path) for path in (row, column))
        yield _grid(indices, (row, row_of), (column, column_of), context)


def label_grids(table: Table) -> list[FactorGrid]:
    """Grids of methods by backbones and methods by teachers, if there are several."""
    if table.study.is_search:
        return []
    students = [index for index, cell in enumerate(table.cells) if cell.labels["method"] != TEACHER]
    grids = []
    for label in ("backbone", "teacher"):
        row_of, column_of = _without(table, label), _label(table, label)
        grids.append(_grid(students, ("", row_of), (label, column_of), ""))
    return [grid for grid in grids if grid.compares]


def _without(table: Table, label: str) -> Trait:
    return lambda index: cell_name(table, table.cells[index], without=(label,))


def _label(table: Table, label: str) -> Trait:
    return lambda index: table.cells[index].labels[label]


def _grid(indices: Iterable[int], row: tuple[str, Trait], column: tuple[str, Trait], context: str) -> FactorGrid:
    places: dict[tuple, tuple[int, ...]] = {}
    for index in indices:
        key = (row[1](index), column[1](index))
        places[key] = (*places.get(key, ()), index)
    rows, columns = (tuple(_sorted(dict.fromkeys(key[axis] for key in places))) for axis in (0, 1))
    return FactorGrid(row[0], column[0], context, rows, columns, places)


def _in_order(indices: list[int], values: list[Hashable]) -> tuple[int, ...]:
    """Cells, by position, in the order of their values."""
    order = _sorted(dict.fromkeys(values))
    positions = {index: order.index(value) for index, value in zip(indices, values, strict=True)}
    return tuple(sorted(indices, key=positions.__getitem__))


def _sorted(values: Collection[Hashable]) -> list[Hashable]:
    """Sort numbers; keep the order of anything else."""
    numbers = [value for value in values if _is_number(value)]
    return [*sorted(numbers)] if len(numbers) == len(values) else [*values]


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
