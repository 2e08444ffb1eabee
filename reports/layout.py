"""Tables as a reader sees them: data frames of text, before they become Markdown or LaTeX."""

from collections.abc import Callable, Iterable

import pandas as pd

from reports.paper import PUBLISHED_METRICS, published, published_value, row_labels
from reports.schema import DIGITS, HIGHER_IS_BETTER, MAIN_METRIC, METRIC_LABELS, METRICS
from reports.tables import Cell, Table
from tiekd.labels import CORRECTED, RELEASED

ABSENT = "–"
COMPACT_METRICS = (*PUBLISHED_METRICS, "delta1")
_ROW_LABELS = {"teacher": "Teacher", "method": "Method", "loss": "Loss", "backbone": "Backbone"}
_CAUSE_LENGTH = 120
_SHORT_ID = 8


def laid_out(table: Table, form: Callable[[Table], pd.DataFrame]) -> pd.DataFrame:
    """A search as its trials, any other study in the form `full`, `compact` or `brief`."""
    return trials(table) if table.study.is_search else form(table)


def full(table: Table) -> pd.DataFrame:
    """Every metric, the published values, the test against the baseline, and the runs: a row per cell."""
    rows = [
        _names(table, cell) | _metric_texts(table, number, METRICS) | _test_texts(table, number) | _fate(cell) | _runs(cell)
        for number, cell in enumerate(table.cells)
    ]
    return _without_blank(rows)


def compact(table: Table) -> pd.DataFrame:
    """What fits a page: the published metrics and δ1; the state only where something is not done."""
    rows = [
        _names(table, cell) | _metric_texts(table, number, COMPACT_METRICS) | _test_texts(table, number) | _fate(cell)
        for number, cell in enumerate(table.cells)
    ]
    frame = _without_blank(rows)
    return frame.drop(columns="State") if all(cell.state == "done" for cell in table.cells) else frame


def brief(table: Table) -> pd.DataFrame:
    """What fits a terminal: the published metrics and what became of the seeds."""
    rows = [
        _names(table, cell)
        | {METRIC_LABELS[m]: _mean_text(table.results.loc[(number, m)]) for m in PUBLISHED_METRICS}
        | _fate(cell)
        for number, cell in enumerate(table.cells)
    ]
    return pd.DataFrame(rows)


def trials(table: Table) -> pd.DataFrame:
    """A search's trials, the best objective first; those that have none stand last, as what they are."""
    metric = objective(table)
    ranked = sorted(
        ((cell, run) for cell in table.cells for run in cell.runs.to_dict("records")),
        key=lambda pair: _badness(pair[1], metric),
    )
    metrics = [metric, *(m for m in COMPACT_METRICS if m != metric)]
    rows = [
        {path: value_text(cell.factors.get(path)) for path in table.factor_paths}
        | {METRIC_LABELS[m]: _number(run[m]) for m in metrics}
        | {"Seed": str(run["seed"]), "State": _trial_state(run), "Run": _short(run["run_id"])}
        for cell, run in ranked
    ]
    return pd.DataFrame(rows)


def objective(table: Table) -> str:
    """The first metric that a search optimised."""
    objectives = (table.study.document.get("search") or {}).get("objectives", ())
    return next((name for name in objectives if name in METRICS), MAIN_METRIC)


def published_rows(role: str, dataset: str, tables: list[Table]) -> pd.DataFrame:
    """A published table with its own digits, and our numbers beside them where `tables` hold some, each fidelity its own."""
    part = published().query("dataset == @dataset and role == @role")
    names = {"teacher": "Model", "backbone": "Backbone"} if role == "teacher" else _ROW_LABELS
    frame = part[list(names)].rename(columns=names).replace("", "-")
    frame["Train Epoch"] = part["epochs"]
    for metric in PUBLISHED_METRICS:
        frame[METRIC_LABELS[metric]] = part[metric]
    for fidelity, ending in ((CORRECTED, ""), (RELEASED, ", released")):
        ours = pd.DataFrame([_ours(row, tables, fidelity) for row in part.to_dict("records")], index=frame.index)
        frame = frame.join(ours.fillna(ABSENT).add_suffix(ending))
    return frame


def common_name(table: Table) -> str:
    """The labels that all cells of a table share."""
    return " · ".join(table.cells[0].labels[name] for name in _common(table))


def cell_name(table: Table, cell: Cell, without: tuple[str, ...] = ()) -> str:
    """What tells a cell from the others of its table, or from those that agree with it but for `without`, on one line."""
    common = _common(table)
    names = [cell.labels[name] for name in _ROW_LABELS if cell.labels[name] and name not in (*without, *common)]
    values = {path: table.value(cell, path) for path in table.varying if path not in without}
    levels = [f"{path.rpartition('.')[2]}={value_text(value)}" for path, value in values.items() if value is not None]
    return ", ".join([*([" · ".join(names)] if names else []), *levels]) or common_name(table)


def value_text(value: object) -> str:
    """A setting in a table."""
    if value is None or value is pd.NA:
        return ABSENT
    return f"{value:g}" if isinstance(value, float) else str(value)


def _common(table: Table) -> list[str]:
    first = table.cells[0].labels
    return [name for name in _ROW_LABELS if first[name] and all(cell.labels[name] == first[name] for cell in table.cells)]


def _names(table: Table, cell: Cell) -> dict[str, str]:
    names = {title: cell.labels[name] or "-" for name, title in _ROW_LABELS.items()}
    return names | {path: value_text(table.value(cell, path)) for path in table.varying}


def _metric_texts(table: Table, number: int, metrics: Iterable[str]) -> dict[str, str]:
    """The published metrics first, each with the published value and the difference to it."""
    texts = {}
    for metric in sorted(metrics, key=lambda m: m not in PUBLISHED_METRICS):
        result, label = table.results.loc[(number, metric)], METRIC_LABELS[metric]
        texts[label] = _mean_text(result)
        if metric in PUBLISHED_METRICS:
            texts[f"{label} published"] = published_value(table.cells[number].labels, table.protocol, metric) or ABSENT
            texts[f"{label} diff."] = _number(result["difference"], sign=True)
    return texts


def _mean_text(result: pd.Series) -> str:
    if not result["n_seeds"]:
        return ABSENT
    return f"{_number(result['mean'])} ± {_number(result['std'])}"


def _test_texts(table: Table, number: int) -> dict[str, str]:
    result, label = table.results.loc[(number, MAIN_METRIC)], METRIC_LABELS[MAIN_METRIC]
    return {
        f"{label} − Baseline": _number(result["baseline_difference"], sign=True),
        "p (Holm)": ABSENT if pd.isna(result["p_holm"]) else f"{result['p_holm']:.3f}",
    }


def _fate(cell: Cell) -> dict[str, str]:
    return {"Seeds": f"{len(cell.done)}/{len(cell.runs)}", "State": _clip(cell.detail) or "done"}


def _runs(cell: Cell) -> dict[str, str]:
    return {"Runs": " ".join(map(_short, cell.run_ids)) or ABSENT}


def _without_blank(rows: list[dict[str, str]]) -> pd.DataFrame:
    """Columns that say nothing in any row (no value was published, there is no baseline) are left out."""
    frame = pd.DataFrame(rows)
    optional = [c for c in frame.columns if c.endswith(("published", "diff.", "Baseline")) or c == "p (Holm)"]
    return frame.drop(columns=[c for c in optional if (frame[c] == ABSENT).all()])


def _ours(row: dict[str, str], tables: list[Table], fidelity: str) -> dict[str, str]:
    """Our cell of a published row's labels and protocol; where studies hold several, tables.md tells them apart."""
    labels = row_labels(row)
    found = [
        (table, number)
        for table in tables
        for number, cell in enumerate(table.cells)
        if cell.labels == labels
        and cell.settings["fidelity"] == fidelity
        and published_value(labels, table.protocol, MAIN_METRIC)
    ]
    if not found:
        return {}
    if len(found) > 1:
        return {f"Our {METRIC_LABELS[m]}": f"{len(found)} cells" for m in PUBLISHED_METRICS}
    table, number = found[0]
    ours = {f"Our {METRIC_LABELS[m]}": _mean_text(table.results.loc[(number, m)]) for m in PUBLISHED_METRICS}
    return ours | _fate(table.cells[number])


def _badness(run: dict, metric: str) -> tuple[bool, float]:
    if pd.isna(run[metric]):
        return True, 0.0
    return False, -run[metric] if metric in HIGHER_IS_BETTER else run[metric]


def _trial_state(run: dict) -> str:
    cause = run["cause"]
    if run["state"] == "missing" and cause.startswith("pruned"):
        return _clip(cause)
    return _clip(f"{run['state']}: {cause}" if cause else run["state"])


def _number(value: float, sign: bool = False) -> str:
    return ABSENT if pd.isna(value) else f"{value:{'+' if sign else ''}.{DIGITS}f}"


def _short(run_id: str) -> str:
    return ABSENT if pd.isna(run_id) else run_id[:_SHORT_ID]


def _clip(text: str) -> str:
    return text if len(text) <= _CAUSE_LENGTH else f"{text[: _CAUSE_LENGTH - 1]}…"
