"""The layouts of tables: which columns a page, a terminal or a search shows."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pandas as pd

from reports.loading.schema import MAIN_METRIC, METRIC_LABELS, METRICS
from reports.render.text_table import ABSENT, Entry, TextTable
from reports.tables.formatting import (
    ROW_LABELS,
    difference_entries,
    floor_entries,
    format_number,
    format_value,
    linked,
    mean_entries,
    mean_entry,
    name_entries,
    status_entries,
)
from reports.tables.published import PUBLISHED_METRICS, published_labels, published_rows, published_value
from reports.tables.table import Table
from tiekd.config.labels import CORRECTED, HIGHER_IS_BETTER, RELEASED

COMPACT_METRICS = (*PUBLISHED_METRICS, "delta1")
# Columns that are dropped if they are empty in every row.
_TEST = ("− Baseline", "− base", "95 % over seeds", "95 % over images", "p (Holm)")
_OPTIONAL = ("published", "diff.", *_TEST)


def lay_out(table: Table, form: Callable[[Table], TextTable]) -> TextTable:
    """Lay out a search as its trials, any other study by `form`: `full_layout`, `compact_layout` or `terminal_layout`."""
    return trial_layout(table) if table.study.is_search else form(table)


def full_layout(table: Table) -> TextTable:
    """One row per cell: every metric, the published values, and the test against the baseline."""
    return _published_layout(table, METRICS)


def compact_layout(table: Table) -> TextTable:
    """One row per cell that fits a page: the published metrics and δ1, without the test. Other metrics are optional."""
    layout = _published_layout(table, METRICS).drop_columns(lambda title, _: title.endswith(_TEST))
    return replace(layout, optional=_labels_except(COMPACT_METRICS))


def _labels_except(metrics: Iterable[str]) -> frozenset[str]:
    """The titles of all other metrics."""
    return frozenset(METRIC_LABELS[m] for m in METRICS if m not in metrics)


def baseline_layout(table: Table) -> TextTable:
    """One row per cell with a baseline: the difference from it, its intervals and its test."""
    rows = [
        name_entries(table, index)
        | difference_entries(table, index, table.result(index, MAIN_METRIC), "Baseline")
        | {"Pairs": linked(table, index, str(len(table.cells[index].done_ids.keys() & table.cells[baseline].done_ids.keys())))}
        for index, baseline in enumerate(table.baselines)
        if baseline is not None
    ]
    return drop_blank_columns(TextTable.from_rows(rows))


def drop_shared_labels(table: Table, text_table: TextTable) -> TextTable:
    """Drop the labels that all cells share; `common_name` lists them."""
    return text_table.drop_columns(lambda title, _: title in {ROW_LABELS.get(name) for name in table.common})


def terminal_layout(table: Table) -> TextTable:
    """One row per cell that fits a terminal: the published metrics and the state of the seeds."""
    return TextTable.from_rows(
        name_entries(table, index)
        | mean_entries(table, index, PUBLISHED_METRICS)
        | floor_entries(table, index)
        | status_entries(table, index)
        for index in range(len(table.cells))
    )


def trial_layout(table: Table) -> TextTable:
    """One row per trial of a search, sorted by the first objective; then the infeasible ones, and those without a result."""
    goal = objective_metric(table)

    def rank(index: int) -> tuple[bool, bool, float]:
        without_result, badness = _badness(table.number_of(index, goal, "mean"), goal)
        return without_result, table.cells[index].infeasible, badness

    metrics = list(dict.fromkeys([goal, *COMPACT_METRICS, *METRICS]))
    layout = TextTable.from_rows(
        {path: format_value(table.cells[index].factors.get(path)) for path in table.factor_paths}
        | mean_entries(table, index, metrics)
        | floor_entries(table, index)
        | status_entries(table, index)
        for index in sorted(range(len(table.cells)), key=rank)
    )
    return replace(layout, optional=_labels_except((goal, *COMPACT_METRICS)))


def objective_metric(table: Table) -> str:
    """The first objective of a search that is a metric."""
    objectives = (table.study.document.get("search") or {}).get("objectives", ())
    return next((name for name in objectives if name in METRICS), MAIN_METRIC)


def published_layout(role: str, dataset: str, tables: list[Table]) -> TextTable:
    """A published table digit for digit, with our values beside it where `tables` have them, a column per fidelity."""
    titles = {"teacher": "Model", "backbone": "Backbone"} if role == "teacher" else ROW_LABELS
    part = [row for row in published_rows() if (row["dataset"], row["role"]) == (dataset, role)]
    rows: list[dict[str, Entry]] = []
    for row in part:
        named: dict[str, Entry] = {title: row[name] or "-" for name, title in titles.items()}
        rows.append(named | {"Train Epoch": row["epochs"]} | {METRIC_LABELS[m]: row[m] for m in PUBLISHED_METRICS})
    for fidelity, ending in ((CORRECTED, ""), (RELEASED, ", released")):
        ours = [_ours(row, tables, fidelity) for row in part]
        found = dict.fromkeys(title for entries in ours for title in entries)
        for entries_of_row, entries in zip(rows, ours, strict=True):
            entries_of_row |= {f"{title}{ending}": entries.get(title, ABSENT) for title in found}
    return drop_blank_columns(TextTable.from_rows(rows))


def _published_layout(table: Table, metrics: Iterable[str]) -> TextTable:
    """Labels, metrics (the published ones first) and the test; empty columns are dropped."""
    ordered = sorted(metrics, key=lambda m: m not in PUBLISHED_METRICS)
    rows = [
        name_entries(table, index)
        | {title: entry for metric in ordered for title, entry in _metric_entries(table, index, metric).items()}
        | floor_entries(table, index)
        | difference_entries(table, index, table.result(index, MAIN_METRIC), "Baseline")
        | status_entries(table, index)
        for index in range(len(table.cells))
    ]
    return drop_blank_columns(TextTable.from_rows(rows))


def drop_blank_columns(text_table: TextTable) -> TextTable:
    """Drop columns that are empty in every row: no published value, no baseline, every state done."""

    def is_blank(title: str, entries: list[Entry]) -> bool:
        if title.startswith("State"):
            return set(entries) <= {"done", ABSENT}
        return title.endswith(_OPTIONAL) and set(entries) <= {"", ABSENT}

    return text_table.drop_columns(is_blank)


def _metric_entries(table: Table, index: int, metric: str) -> dict[str, Entry]:
    """A metric, with the published value and the difference from it if it was published."""
    label = METRIC_LABELS[metric]
    entries = mean_entries(table, index, [metric])
    if metric in PUBLISHED_METRICS:
        entries[f"{label} published"] = published_value(table.cells[index].labels, table.protocol, metric) or ABSENT
        entries[f"{label} diff."] = linked(table, index, format_number(table.number_of(index, metric, "difference"), sign=True))
    return entries


def _ours(row: dict[str, str], tables: list[Table], fidelity: str) -> dict[str, Entry]:
    """Our cell with the labels and the protocol of a published row; if studies have several, only their number."""
    labels = published_labels(row)
    found = [
        (table, index)
        for table in tables
        for index, cell in enumerate(table.cells)
        if cell.labels == labels
        and cell.settings["fidelity"] == fidelity
        and published_value(labels, table.protocol, MAIN_METRIC)
    ]
    if not found:
        return {}
    if len(found) > 1:
        return {f"Our {METRIC_LABELS[m]}": f"{len(found)} cells" for m in PUBLISHED_METRICS}
    ((table, index),) = found
    ours = {f"Our {METRIC_LABELS[m]}": mean_entry(table, index, m, best=()) for m in PUBLISHED_METRICS}
    return ours | status_entries(table, index)


def _badness(mean: float, metric: str) -> tuple[bool, float]:
    if pd.isna(mean):
        return True, 0.0
    return False, -mean if metric in HIGHER_IS_BETTER else mean
