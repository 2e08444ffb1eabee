"""Entries of a table row: labels, numbers linked to their runs, and the state of the seeds."""

from collections.abc import Collection, Iterable

import pandas as pd

from reports.loading.schema import DIGITS, MAIN_METRIC, METRIC_LABELS, PRUNED
from reports.render.text_table import ABSENT, Entry, Number
from reports.tables.cells import TableCell
from reports.tables.table import Table
from tiekd.config.specs import DATASETS, TEACHERS

ROW_LABELS = {"teacher": "Teacher", "method": "Method", "loss": "Loss", "backbone": "Backbone"}
_CAUSE_LENGTH = 120


def name_entries(table: Table, index: int) -> dict[str, Entry]:
    cell = table.cells[index]
    labels: dict[str, Entry] = {title: label_text(name, cell.labels[name]) or "-" for name, title in ROW_LABELS.items()}
    return labels | {path: format_value(table.value(cell, path)) for path in table.varying}


def label_text(name: str, value: str) -> str:
    """A label's value as papers print it: AdaBins for the teacher adabins, KITTI for the data set kitti."""
    if name == "teacher" and value in TEACHERS:
        return TEACHERS[value].title
    return DATASETS[value].label if name == "dataset" and value in DATASETS else value


def common_name(table: Table) -> str:
    """The labels that all cells of a table share."""
    return " · ".join(label_text(name, table.cells[0].labels[name]) for name in ROW_LABELS if name in table.common)


def cell_name(table: Table, cell: TableCell, without: tuple[str, ...] = ()) -> str:
    """A name that distinguishes a cell from the others of its table; `without` lists labels and settings to leave out."""
    shown = [name for name in ROW_LABELS if cell.labels[name] and name not in (*without, *table.common)]
    names = [label_text(name, cell.labels[name]) for name in shown]
    values = {path: table.value(cell, path) for path in table.varying if path not in without}
    levels = [f"{path.rpartition('.')[2]}={format_value(value)}" for path, value in values.items() if value is not None]
    return ", ".join([*([" · ".join(names)] if names else []), *levels]) or common_name(table)


def format_value(value: object) -> str:
    """Format a setting."""
    if value is None or value is pd.NA:
        return ABSENT
    return f"{value:g}" if isinstance(value, float) else str(value)


def mean_entry(table: Table, index: int, metric: str, best: Collection[int]) -> Entry:
    """Mean ± standard deviation, bold for the cells in `best`; ABSENT without a result."""
    n_seeds, mean, std = (table.number_of(index, metric, column) for column in ("n_seeds", "mean", "std"))
    return Number(f"{format_number(mean)} ± {format_number(std)}", table.anchor(index), index in best) if n_seeds else ABSENT


def mean_entries(table: Table, index: int, metrics: Iterable[str]) -> dict[str, Entry]:
    """The means of several metrics, bold where a cell is best among the students of its backbone."""
    return {METRIC_LABELS[m]: mean_entry(table, index, m, table.best[m]) for m in metrics}


def floor_entries(table: Table, index: int) -> dict[str, Entry]:
    """The floor of L_DPM, if cells of the table have different targets."""
    return {"Floor": linked(table, index, format_number(table.cells[index].target_floor))} if table.shows_floor else {}


def difference_entries(table: Table, index: int, result: dict[str, float], name: str) -> dict[str, Entry]:
    """A difference from `name`, its intervals over seeds and over images, and its test."""
    texts = {
        f"{METRIC_LABELS[MAIN_METRIC]} − {name}": format_number(result["baseline_difference"], sign=True),
        "95 % over seeds": format_interval(result["baseline_ci_low"], result["baseline_ci_high"]),
        "95 % over images": format_interval(result["baseline_images_ci_low"], result["baseline_images_ci_high"]),
        "p (Holm)": ABSENT if pd.isna(result["p_holm"]) else f"{result['p_holm']:.3f}",
    }
    return {title: linked(table, index, text) for title, text in texts.items()}


def status_entries(table: Table, index: int) -> dict[str, Entry]:
    """The number of finished seeds, and the state of the others."""
    cell = table.cells[index]
    seeds = linked(table, index, f"{cell.n_done}/{len(cell.runs)}")
    pruned = all(run["state"] == PRUNED for run in cell.runs)
    state = cell.runs[0]["cause"] if pruned else cell.detail or "done"
    return {"Seeds": seeds, "State": shorten(state)}


def linked(table: Table, index: int, text: str) -> Entry:
    """A text linked to the runs of a cell, unless it is ABSENT."""
    return text if text == ABSENT else Number(text, table.anchor(index))


def format_interval(low: float, high: float) -> str:
    return ABSENT if pd.isna(low) else f"[{format_number(low, sign=True)}, {format_number(high, sign=True)}]"


def shorten(text: str) -> str:
    return text if len(text) <= _CAUSE_LENGTH else f"{text[: _CAUSE_LENGTH - 1]}…"


def format_number(value: float, sign: bool = False) -> str:
    if value != value:  # NaN; a third of the time of pd.isna
        return ABSENT
    return f"{value:+.{DIGITS}f}" if sign else f"{value:.{DIGITS}f}"
