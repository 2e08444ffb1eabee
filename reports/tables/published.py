"""The published tables, digit for digit, and the published value of a cell."""

from functools import cache
from pathlib import Path

import pandas as pd

from tiekd.config.labels import LABELS, TEACHER
from tiekd.config.specs import DATASETS, LOSSES, TEACHERS

_FOLDER = Path(__file__).parents[1] / "published"
PUBLISHED_METRICS = ("abs_rel", "rmse")


@cache
def published_table() -> pd.DataFrame:
    """The published tables as text: dataset, role, teacher, method, loss, backbone, epochs, abs_rel, rmse."""
    files = sorted(_FOLDER.glob("*.csv"))
    return pd.concat([pd.read_csv(file, dtype=str, keep_default_na=False) for file in files], ignore_index=True)


def published_value(labels: dict[str, str], protocol: str, metric: str) -> str | None:
    """The published value of a cell with its digits; None if there is none, or under another protocol."""
    dataset = DATASETS.get(labels["dataset"])
    if metric not in PUBLISHED_METRICS or dataset is None or protocol != dataset.defaults["evaluation"]["protocol"]:
        return None
    return _by_labels().get(tuple(labels[name] for name in LABELS), {}).get(metric)


def published_labels(row: dict[str, str]) -> dict[str, str]:
    """The labels of a run that reproduces a published row; a teacher's loss comes from its recipe."""
    own = {name: row[name] for name in LABELS}
    if row["role"] == "teacher":
        own |= {"method": TEACHER, "loss": LOSSES[TEACHERS[row["teacher"]].defaults["loss"]["name"]].label}
    return own


def published_rows() -> list[dict[str, str]]:
    """The rows of `published_table` by column."""
    table = published_table()
    return [dict(zip(table.columns, map(str, row), strict=True)) for row in table.itertuples(index=False)]


@cache
def _by_labels() -> dict[tuple[str, ...], dict[str, str]]:
    return {tuple(published_labels(row).values()): row for row in published_rows()}
