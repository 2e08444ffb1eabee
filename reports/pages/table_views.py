"""The tables of one study on a page: all cells, one factor at a time, grids of two factors, ranks, and network costs."""

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from reports.loading.schema import MAIN_METRIC, METRIC_LABELS
from reports.pages.footnotes import (
    baseline_notes,
    cost_notes,
    grid_notes,
    one_factor_notes,
    rank_notes,
    sequential_notes,
    table_notes,
)
from reports.pages.table_layouts import (
    COMPACT_METRICS,
    baseline_layout,
    compact_layout,
    drop_blank_columns,
    drop_shared_labels,
    full_layout,
    lay_out,
)
from reports.render.text_table import ABSENT, Entry, Number, TextTable, entry_text
from reports.tables.aggregates import Numbers, numbers_of
from reports.tables.factor_views import FactorBlock, FactorGrid, label_grids, numeric_grids, one_factor_blocks
from reports.tables.formatting import (
    cell_name,
    common_name,
    difference_entries,
    format_interval,
    format_number,
    format_value,
    label_text,
    mean_entry,
    status_entries,
)
from reports.tables.ranks import BlockRanks, protocol_ranks, protocols_of
from reports.tables.table import Table

_LABEL_TITLES = {"backbone": "Backbones", "teacher": "Teachers"}


@dataclass(frozen=True)
class TableView:
    """A table with its title and notes; the main table of a study has no title of its own."""

    title: str
    content: TextTable
    notes: list[str]


def all_metrics_views(table: Table) -> list[TableView]:
    """The cells of a study with all metrics and the test, or the trials of a search."""
    return [TableView("", replace(lay_out(table, full_layout), optional=frozenset()), table_notes(table))]


def compact_views(table: Table) -> list[TableView]:
    """The same as two tables that fit a page: metrics, and the test. Labels that all rows share go into the notes."""
    main = TableView("", drop_shared_labels(table, lay_out(table, compact_layout)), table_notes(table, whole=False))
    test = drop_shared_labels(table, baseline_layout(table))
    return [main, TableView("Against the Baseline", test, baseline_notes(table))] if test.rows else [main]


def extra_views(table: Table) -> list[TableView]:
    """One factor at a time, grids, ranks over protocols and network costs, as far as the study has them."""
    found = [_one_factor(table, blocks)] if (blocks := one_factor_blocks(table)) else []
    found += [_grid(table, grid, by_column=False) for grid in numeric_grids(table)]
    found += [_grid(table, grid, by_column=True) for grid in label_grids(table)]
    if table.sequential:
        found.append(TableView("Seeds until decided", _decisions(table), sequential_notes(table)))
    if ranks := protocol_ranks(table):
        found.append(TableView("Who wins where", _ranks(table, ranks), rank_notes(table, ranks)))
    costs = _costs(table)
    return [*found, TableView("Networks", costs, cost_notes())] if costs.rows else found


def _one_factor(table: Table, blocks: list[FactorBlock]) -> TableView:
    """One block per factor, with its levels compared with the study's base."""
    others: list[int | None] = [None] * len(table.cells)
    for block in blocks:
        for index in block.cells:
            others[index] = block.base if index != block.base else None
    compared = table.compared(others)
    rows: list[dict[str, Entry]] = []
    rules: list[int] = []
    for block in blocks:
        rules.append(len(rows))
        best = {metric: table.best_of(block.cells, metric) for metric in COMPACT_METRICS}
        rows += [_level(table, block, index, compared, best) for index in block.cells]
    lines = one_factor_notes(table, compared, [block.cells for block in blocks])
    return TableView("One factor at a time", drop_blank_columns(TextTable.from_rows(rows, rules=rules[1:])), lines)


def _level(table: Table, block: FactorBlock, index: int, compared: Numbers, best: dict[str, list[int]]) -> dict[str, Entry]:
    value = format_value(table.value(table.cells[index], block.factor))
    return (
        {"Factor": block.factor, "Value": f"{value} (base)" if index == block.base else value}
        | {METRIC_LABELS[m]: mean_entry(table, index, m, best[m]) for m in COMPACT_METRICS}
        | difference_entries(table, index, numbers_of(compared, index, MAIN_METRIC), "base")
        | status_entries(table, index)
    )


def _grid(table: Table, grid: FactorGrid, by_column: bool) -> TableView:
    """The main metric by two factors; bold is the best of the grid, or of each column."""
    blocks = [[n for place in _places(grid, columns) for n in place] for columns in _blocks(grid, by_column)]
    best = {index for block in blocks for index in table.best_of(block, MAIN_METRIC)}
    titles = {column: _title(grid.column_name, column) for column in grid.columns}
    rows = [
        {grid.row_name or "Method": format_value(row)}
        | {titles[column]: _place(table, grid.places.get((row, column), ()), best) for column in grid.columns}
        for row in grid.rows
    ]
    title = _LABEL_TITLES.get(grid.column_name) or f"{grid.row_name} × {grid.column_name}"
    context = f", {grid.context}" if grid.context not in ("", common_name(table)) else ""
    lines = grid_notes(table, blocks, "a column" if by_column else "the grid")
    return TableView(f"{title}: {METRIC_LABELS[MAIN_METRIC]}{context}", TextTable.from_rows(rows), lines)


def _blocks(grid: FactorGrid, by_column: bool) -> list[tuple[Hashable, ...]]:
    return [(column,) for column in grid.columns] if by_column else [grid.columns]


def _places(grid: FactorGrid, columns: Collection[Hashable]) -> list[tuple[int, ...]]:
    return [indices for (_, column), indices in grid.places.items() if column in columns]


def _title(name: str, value: Hashable) -> str:
    """A column's title: a label's value, or a factor with its value."""
    shown = label_text(name, str(value)) or "no teacher"
    return shown if name in _LABEL_TITLES else f"{name.rpartition('.')[2]} = {format_value(value)}"


def _place(table: Table, indices: tuple[int, ...], best: Collection[int]) -> Entry:
    """Mean ± standard deviation with the number of finished seeds; the state if there is no result."""
    if len(indices) != 1:
        return Number(f"{len(indices)} cells", table.anchor(indices[0])) if indices else ""
    (index,) = indices
    cell, mean = table.cells[index], mean_entry(table, index, MAIN_METRIC, best)
    seeds = f"{cell.n_done}" if cell.state == "done" else f"{cell.n_done} of {len(cell.runs)}"
    text = f"{cell.state} ({seeds})" if mean == ABSENT else f"{entry_text(mean)} ({seeds})"
    return Number(text, table.anchor(index), index in best)


def _decisions(table: Table) -> TextTable:
    """How each row of a study with seeds until decided stands."""
    label = METRIC_LABELS[table.study.sequential["rule"]["metric"]]
    rows: list[dict[str, Entry]] = []
    for index, row in table.sequential.items():
        low, high, p = (math.nan if row[name] is None else row[name] for name in ("low", "high", "p"))
        difference = math.nan if row["difference"] is None else row["difference"]
        texts: dict[str, Entry] = {
            f"{label} − Baseline": format_number(difference, sign=True),
            "95 %": format_interval(low, high),
            "p": ABSENT if p != p else f"{p:.3f}",
            "Decision": row["state"],
        }
        name = cell_name(table, table.cells[index])
        shown: dict[str, Entry] = {"Row": Number(name, table.anchor(index)), "Seeds": str(row["n_seeds"])}
        rows.append(shown | texts)
    return TextTable.from_rows(rows)


def _ranks(table: Table, blocks: list[BlockRanks]) -> TextTable:
    """The rank of each row under each protocol, with the shares of seeds and of resamples that agree."""
    rows: list[dict[str, Entry]] = []
    rules = []
    for block in blocks:
        rules.append(len(rows))
        for place, index in enumerate(block.cells):
            texts: dict[str, Entry] = {}
            for column, protocol in enumerate(protocols_of(table)):
                rank, n, agree, draws = (part[place, column] for part in (block.rank, block.n_seeds, block.agree, block.draws))
                shares = [f"{agree}/{n}"] if n > 1 else []
                shares += [f"{draws:.0%}"] if np.isfinite(draws) else []
                text = f"{rank}" + (f" ({', '.join(shares)})" if shares else "")
                texts[protocol] = Number(text, table.anchor(index), rank == 1) if rank else ABSENT
            rows.append({"Row": cell_name(table, table.cells[index]), **texts})
    return TextTable.from_rows(rows, rules=rules[1:])


def _costs(table: Table) -> TextTable:
    """One row per measured network of the table."""
    first = {cell.network: cell for cell in reversed(table.cells) if cell.network in table.costs.index}
    varying = [path for path in table.varying if path.startswith("student.")]  # the name includes the head and its bins
    costs = {str(row["network"]): row for _, row in table.costs.reset_index(names="network").iterrows()}
    rows: list[dict[str, Entry]] = []
    for network, cell in reversed(first.items()):
        cost = costs[network]
        settings: dict[str, Entry] = {path: format_value(table.value(cell, path)) for path in varying}
        rows.append({"Network": str(cost["name"])} | settings | _cost_texts(cost))
    return TextTable.from_rows(rows)


def _cost_texts(cost: pd.Series) -> dict[str, str]:
    return {
        "Params [M]": f"{cost['parameters'] / 1e6:.2f}",
        "MACs [G]": f"{cost['macs'] / 1e9:.2f}",
        "ms/image": f"{cost['milliseconds']:.1f} [{cost['milliseconds_low']:.1f}, {cost['milliseconds_high']:.1f}]",
        "Memory [MB]": ABSENT if pd.isna(cost["peak_bytes"]) else f"{cost['peak_bytes'] / 1e6:.0f}",
        "Device": cost["device"],
    }
