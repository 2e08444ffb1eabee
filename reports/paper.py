"""The published tables, digit for digit, and the published value of a cell of ours."""

from functools import cache
from pathlib import Path

import pandas as pd

from reports.schema import LABELS
from tiekd.presets import DATASETS

FOLDER = Path(__file__).parent / "published"
PUBLISHED_METRICS = ("abs_rel", "rmse")


@cache
def published() -> pd.DataFrame:
    """Both published tables as text: dataset, role, teacher, method, loss, backbone, epochs, abs_rel, rmse."""
    files = sorted(FOLDER.glob("*.csv"))
    return pd.concat([pd.read_csv(file, dtype=str, keep_default_na=False) for file in files], ignore_index=True)


def published_value(labels: dict[str, str], protocol: str, metric: str) -> str | None:
    """A cell's published number with its digits; None where none was published, or under another protocol."""
    if metric not in PUBLISHED_METRICS or protocol != DATASETS.get(labels["dataset"], {}).get("evaluation", {}).get("protocol"):
        return None
    return _students().get(tuple(labels[name] for name in LABELS), {}).get(metric)


@cache
def _students() -> dict[tuple[str, ...], dict[str, str]]:
    students = published().query("role == 'student'")
    return {tuple(row[name] for name in LABELS): row for row in students.to_dict("records")}
