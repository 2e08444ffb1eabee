"""A paper table as LaTeX, Markdown and CSV: the names of its rows and columns, its numbers, and the notes below it."""

import math
from collections import Counter
from collections.abc import Hashable, Iterator
from itertools import groupby
from typing import Any

import pandas as pd

from reports.loading.schema import METRIC_LABELS
from reports.render.paper_latex import LatexColumn, PaperLayout, latex_fragment
from reports.render.text_table import ABSENT, Entry, Number, TextTable
from reports.tables.formatting import ROW_LABELS, format_value, label_text
from reports.tables.paper_table import PaperColumn, PaperNumber, PaperTable
from reports.tables.seed_statistics import ALPHA
from tiekd.config.labels import HIGHER_IS_BETTER
from tiekd.config.specs import DATASETS

_TITLES = {"dataset": "Data set", **ROW_LABELS}
_SPREADS = {
    "std": "sample standard deviation over training seeds",
    "ci": f"half the {1 - ALPHA:.0%} interval over training seeds (Student's t)",
}


def paper_latex(table: PaperTable) -> str:
    """A fragment for `\\input`, which needs booktabs, graphicx and siunitx."""
    config, names = table.config, [_row_title(table, name) for name in table.row_names]
    columns = [LatexColumn(title) for title in names]
    groups = [(len(names), "")]
    for number, column in enumerate(table.columns):
        columns += [LatexColumn(_metric_title(metric), *_width(table, number, metric)) for metric in config.metrics]
        groups.append((len(config.metrics), _column_title(table, column)))
    rows = [
        [*_row_names(table, row), *(_latex_number(table, row, c, m) for c in range(len(table.columns)) for m in config.metrics)]
        for row in range(len(table.rows))
    ]
    layout = PaperLayout(columns, groups if len(table.columns) > 1 else [], rows, table.rules)
    label = config.label or f"tab:{paper_stem(table)}"
    return latex_fragment(layout, paper_caption(table), label, [*_notes(table, latex=True)])


def paper_text(table: PaperTable) -> tuple[TextTable, list[str]]:
    """The table as texts, with its notes."""
    rows: list[dict[str, Entry]] = []
    for row in range(len(table.rows)):
        titles = [_row_title(table, name) for name in table.row_names]
        entries: dict[str, Entry] = dict(zip(titles, _row_names(table, row), strict=True))
        for number, column in enumerate(table.columns):
            prefix = f"{_column_title(table, column)} " if len(table.columns) > 1 else ""
            for metric in table.config.metrics:
                found = table.number(row, number, metric)
                text = _state(table, row, number) if found is None else _plain_number(table, found)
                anchor = table.anchors.get((row, number))
                bold = found is not None and found.bold
                entries[prefix + _metric_title(metric)] = Number(text, anchor, bold) if anchor else text
        rows.append(entries)
    return TextTable.from_rows(rows, rules=table.rules), [*_notes(table)]


def paper_frame(table: PaperTable) -> pd.DataFrame:
    """One row per row of the table: labels, and for each column and metric the mean and the spread, unrounded."""
    rows = []
    for row, key in enumerate(table.rows):
        entries: dict[str, Any] = dict(zip(table.row_names, map(format_value, key), strict=True))
        for number, column in enumerate(table.columns):
            prefix = f"{format_value(column.value)} {column.protocol} "
            for metric in table.config.metrics:
                found = table.number(row, number, metric) or PaperNumber(math.nan, math.nan, False)
                entries[f"{prefix}{metric}"] = found.mean
                if table.config.spread != "none":
                    entries[f"{prefix}{metric} {table.config.spread}"] = found.spread
            cell = table.places.get((row, number))
            entries[f"{prefix}seeds"] = cell.n_done if cell else 0
        rows.append(entries)
    return pd.DataFrame(rows)


def paper_stem(table: PaperTable) -> str:
    """The name of its files."""
    return "+".join(dict.fromkeys(part.study.name or "runs" for part in table.tables))


def paper_caption(table: PaperTable) -> str:
    """The caption, by default the titles of its studies."""
    titles = dict.fromkeys(part.study.title or part.study.name for part in table.tables)
    return table.config.caption or "; ".join(title for title in titles if title)


def _row_title(table: PaperTable, name: str) -> str:
    return table.config.names.get(name) or _TITLES.get(name) or name.rpartition(".")[2].replace("_", " ")


def _column_title(table: PaperTable, column: PaperColumn) -> str:
    """The value, with its protocol if the value alone does not tell columns apart."""
    several = sum(other.value == column.value for other in table.columns) > 1
    return _value_name(table, table.config.columns, column.value) + (f", {column.protocol}" if several else "")


def _row_names(table: PaperTable, row: int) -> list[str]:
    """The names of a row; a first name that repeats that of the row above is blank."""
    names = [_value_name(table, name, value) for name, value in zip(table.row_names, table.rows[row], strict=True)]
    if len(names) > 1 and row and row not in table.rules and table.rows[row - 1][0] == table.rows[row][0]:
        names[0] = ""
    return names


def _value_name(table: PaperTable, name: str, value: Hashable) -> str:
    """A value as `ReportConfig.names` or its spec calls it."""
    text = format_value(value) or ABSENT
    return table.config.names.get(text) or label_text(name, text)


def _metric_title(metric: str) -> str:
    return f"{METRIC_LABELS[metric]} {'↑' if metric in HIGHER_IS_BETTER else '↓'}"


def _plain_number(table: PaperTable, number: PaperNumber) -> str:
    digits = table.config.digits
    return f"{number.mean:.{digits}f}" + ("" if math.isnan(number.spread) else f" ± {number.spread:.{digits}f}")


def _last_digits(table: PaperTable, number: PaperNumber) -> str:
    """The spread in units of the last digit; blank if there is none."""
    return "" if math.isnan(number.spread) else f"{number.spread * 10**table.config.digits:.0f}"


def _latex_number(table: PaperTable, row: int, column: int, metric: str) -> str | tuple[str, bool]:
    """A number for siunitx with whether it is bold, or a text."""
    found = table.number(row, column, metric)
    if found is None:
        return _state(table, row, column)
    spread = _last_digits(table, found)
    return f"{found.mean:.{table.config.digits}f}" + (f"({spread})" if spread else ""), found.bold


def _width(table: PaperTable, column: int, metric: str) -> tuple[int, int, int]:
    """Digits before and after the decimal point, and of the spread, of a column of numbers."""
    found = [n for row in range(len(table.rows)) if (n := table.number(row, column, metric))]
    before = max((len(f"{n.mean:.{table.config.digits}f}".partition(".")[0]) for n in found), default=1)
    return before, table.config.digits, max((len(_last_digits(table, n)) for n in found), default=0)


def _state(table: PaperTable, row: int, column: int) -> str:
    """What stands in place of a number: the state of the runs, or a dash if the studies have no such cell."""
    cell = table.places.get((row, column))
    return cell.state if cell else ABSENT


def _notes(table: PaperTable, latex: bool = False) -> Iterator[str]:
    """What the numbers are, and what is missing. latex: spreads are in units of the last digit."""
    for column in table.columns:
        yield f"{_column_title(table, column)}: protocol `{column.protocol}`."
    counts = {(cell.labels["dataset"], run["n_images"]) for cell in table.places.values() for run in cell.done.values()}
    for dataset, n_images in sorted((name, n) for name, n in counts if name in DATASETS and n is not None):
        if note := DATASETS[dataset].count_note(n_images):
            yield f"{note}."
    done = Counter(cell.n_done for cell in table.places.values() if cell.n_done)
    if spread := _SPREADS.get(table.config.spread):
        form = "mean, and in parentheses, in units of the last digit, the" if latex else "mean ±"
        yield f"{form[0].upper()}{form[1:]} {spread}; {_seeds(done)}."
    else:
        yield f"Mean over training seeds; {_seeds(done)}."
    if table.config.bold == "best":
        yield "Bold: the best mean of a column among the students of one backbone. It is not a test."
    elif table.config.bold == "tested":
        yield (
            "Bold: among the students of one backbone, the best mean of a column and all that are not significantly worse "
            f"(p < {ALPHA}: sign-flip tests paired by seed, Holm's correction over all pairs); nothing if none is worse."
        )
    for state, places in groupby(sorted(table.places, key=_by_state(table)), key=_by_state(table)):
        if state != "done":
            names = ["/".join(filter(None, _all_names(table, *place))) for place in places]
            yield f"{state}: {'; '.join(dict.fromkeys(names))}."


def _by_state(table: PaperTable) -> Any:
    return lambda place: table.places[place].detail or "done"


def _all_names(table: PaperTable, row: int, column: int) -> list[str]:
    """The names of a row, and of its column if there are several."""
    names = [_value_name(table, name, value) for name, value in zip(table.row_names, table.rows[row], strict=True)]
    names += [_column_title(table, table.columns[column])] if len(table.columns) > 1 else []
    return [name for name in names if name != ABSENT]


def _seeds(done: Counter[int]) -> str:
    """The number of seeds that most cells have; the others are listed by their state."""
    if not done:
        return "no run is done"
    (n, _), *others = done.most_common()
    return f"{n} seed{'s' * (n != 1)}" + (f" (some {' or '.join(str(m) for m, _ in others)})" if others else "")
