"""Cells: runs that differ only in their seed."""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from reports.loading.records import INFEASIBLE
from reports.loading.schema import LABELLED, METRICS, STATES
from tiekd.config.labels import BASELINE, LABELS, TEACHER

# Settings of the compared method, in which a row and its baseline may differ. Quirks may apply to only one of them, so both
# must agree on the fidelity that was asked for.
METHOD_SETTINGS = ("loss.", "teacher", "bins", "student.head", "fidelity")
# A Baseline of few labels has fewer frames, and needs more epochs for as many steps.
LENGTH_SETTINGS = ("optim.epochs", "evaluation.every")
FIRST = (TEACHER, BASELINE)
RUN_COLUMNS = [
    "run_id",
    "seed",
    "state",
    "cause",
    "n_images",
    "fidelity",
    "network",
    "device_seconds",
    "target_floor",
    *METRICS,
]


@dataclass(frozen=True)
class TableCell:
    """One row of a table.

    `runs` holds RUN_COLUMNS of runs.parquet as plain values, one dict per seed, since there may be thousands of cells with few
    runs. A missing value is None, a missing index NaN. Settings and factors are by dotted path.
    """

    labels: dict[str, str]
    settings: dict[str, Any]
    factors: dict[str, Any]
    runs: tuple[dict[str, Any], ...]

    @cached_property
    def done(self) -> dict[int, dict[str, Any]]:
        """The finished runs by seed."""
        return {run["seed"]: run for run in self.runs if run["state"] == "done"}

    @cached_property
    def done_ids(self) -> dict[int, str]:
        return {seed: run["run_id"] for seed, run in self.done.items()}

    @property
    def run_ids(self) -> list[str]:
        """The ids of its runs; a run whose inputs are missing has no id yet."""
        return [run["run_id"] for run in self.runs if run["run_id"]]

    @property
    def fidelity(self) -> str:
        """The fidelity that its config asks for; `settings` has the quirks that apply."""
        return self.runs[0]["fidelity"]

    @property
    def target_floor(self) -> float:
        """Abs Rel of a perfect student of L_DPM with respect to the teacher; NaN without L_DPM, or if no run has stored it."""
        return next((floor for run in self.done.values() if (floor := run["target_floor"]) == floor), math.nan)

    @property
    def network(self) -> str:
        """The id of its network, by which costs are looked up."""
        return self.runs[0]["network"]

    @cached_property
    def states(self) -> Counter[str]:
        """The number of seeds in each state."""
        return Counter(run["state"] for run in self.runs)

    @property
    def state(self) -> str:
        """done if every seed is; otherwise the first other state in the order of STATES."""
        return next((s for s in STATES if s in self.states and s != "done"), "done")

    @property
    def n_done(self) -> int:
        return self.states["done"]

    @property
    def infeasible(self) -> bool:
        """Whether it is a trial that violates a constraint of its search."""
        return (self.runs[0]["cause"] or "").startswith(INFEASIBLE)

    @cached_property
    def detail(self) -> str:
        """The states and causes of unfinished seeds, or the constraints that a trial violates; empty if all are done."""
        if self.infeasible:
            return self.runs[0]["cause"]
        if self.n_done == len(self.runs):
            return ""
        counts = Counter((run["state"], run["cause"] or "") for run in self.runs if run["state"] != "done")
        texts = [(f"{state}: {cause}" if cause else state, n) for (state, cause), n in counts.items()]
        if len(self.runs) == 1:
            return texts[0][0]
        return f"{self.n_done} of {len(self.runs)} seeds: {'; '.join(f'{n} {text}' for text, n in texts)}"


def group_into_cells(runs: pd.DataFrame) -> list[TableCell]:
    """Group rows of runs.parquet, joined with their identities, into cells; teachers and baselines come first.

    A run that occurs twice counts once.
    """
    runs = runs.assign(key=[json.dumps(settings, sort_keys=True) for settings in runs["settings"]])
    runs = runs.drop_duplicates(["key", "seed", "run_id"])
    # Runs that differ only in the content of their inputs share a seed: each is a cell of its own, never averaged.
    repeat = runs.groupby(["key", "seed"], sort=False).cumcount()
    parts = sorted(runs.groupby(["key", repeat], sort=False).indices.values(), key=lambda rows: rows[0])
    return sorted(_cells(runs, parts), key=_rank)


def _cells(runs: pd.DataFrame, parts: Collection) -> Iterator[TableCell]:
    plain, first = _plain(runs[RUN_COLUMNS]), runs.iloc[[rows[0] for rows in parts]]
    labels = _plain(first[[*LABELS]])
    for rows, named, settings, factors in zip(parts, labels, first["settings"], first["factors"], strict=True):
        yield TableCell(named, settings, factors, tuple(plain[row] for row in rows))


def _plain(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts of plain values."""
    columns = [
        values.tolist() if values.dtype == "float64" else values.astype(object).where(values.notna(), None).tolist()
        for _, values in runs.items()
    ]
    names = list(runs.columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _rank(cell: TableCell) -> int:
    method = cell.labels["method"]
    return FIRST.index(method) if method in FIRST else len(FIRST)


class Baselines:
    """Find the baseline of each cell of a table."""

    def __init__(self, cells: Iterable[TableCell]):
        cells = list(cells)
        shared = set.intersection(*(set(cell.settings) for cell in cells)) if cells else set()
        self._paths = sorted(path for path in shared if not path.startswith((*METHOD_SETTINGS, *LENGTH_SETTINGS)))
        self._by_key: dict[tuple, list[int]] = {}
        for index, cell in enumerate(cells):
            if cell.labels["method"] == BASELINE:
                self._by_key.setdefault(self._key(cell), []).append(index)
        self._cells = cells

    def of(self, index: int) -> int | None:
        """The position of the only Baseline cell that differs from a cell in the method alone; None if there is no such cell.

        Teachers have no baseline.
        """
        cell = self._cells[index]
        if cell.labels["method"] == TEACHER:
            return None
        found = [i for i in self._by_key.get(self._key(cell), ()) if _comparable(self._cells[i], cell)]
        found = [i for i in found if self._cells[i].labels["loss"] == "SI"] or found  # the published Baseline
        return found[0] if len(found) == 1 and found[0] != index else None

    def _key(self, cell: TableCell) -> tuple:
        """The settings of every cell on which a cell and its baseline must agree."""
        return (cell.labels["backbone"], cell.fidelity, *(cell.settings[path] for path in self._paths))


def _comparable(baseline: TableCell, cell: TableCell) -> bool:
    """Whether two cells agree on all settings that both read, except those of the method and LENGTH_SETTINGS."""
    free = (*METHOD_SETTINGS, *LENGTH_SETTINGS) if LABELLED in baseline.settings else METHOD_SETTINGS
    shared = baseline.settings.keys() & cell.settings.keys()
    return all(baseline.settings[p] == cell.settings[p] for p in shared if not p.startswith(free))
