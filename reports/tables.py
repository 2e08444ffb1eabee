"""Runs into cells, cells into `tables.parquet`.

A cell is the runs that differ in their seed only. Cells of one study, data set and evaluation protocol make one table: numbers
of different protocols are never laid side by side.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from reports.collect import Collected
from reports.paper import published_value
from reports.records import Study
from reports.schema import METRICS, TABLE_KEYS, TABLE_VALUES
from reports.statistics import holm, paired_differences, sign_flip_p, spread
from tiekd.labels import BASELINE, LABELS, TEACHER
from tiekd.store import STATES

# Settings that belong to the method compared: a row and its baseline need not agree on them. Quirks act on the one that cannot
# act on the other, so of fidelity they must agree on what was asked for.
METHOD_SETTINGS = ("loss.", "teacher", "bins", "student.head", "fidelity")
FIRST = (TEACHER, BASELINE)


@dataclass(frozen=True)
class Cell:
    """One row of a table. `runs` are rows of runs.parquet, one per seed; settings and factors are by dotted path."""

    labels: dict[str, str]
    settings: dict
    factors: dict
    runs: pd.DataFrame

    @cached_property
    def done(self) -> pd.DataFrame:
        """Metrics by seed of the runs that are done."""
        return self.runs.loc[self.runs["state"] == "done"].set_index("seed")[list(METRICS)]

    @property
    def run_ids(self) -> list[str]:
        """The runs that have an id: one whose inputs are missing has none."""
        return self.runs["run_id"].dropna().tolist()

    @property
    def fidelity(self) -> str:
        """As its config states it: `settings` hold the quirks that act."""
        return self.runs["fidelity"].iloc[0]

    @property
    def state(self) -> str:
        """done when every seed is; else the first other state, in the store's order."""
        present = set(self.runs["state"])
        return next((s for s in STATES if s in present and s != "done"), "done")

    @property
    def detail(self) -> str:
        """What became of the seeds that are not done, with their causes; "" when all are."""
        rest = self.runs.loc[self.runs["state"] != "done"]
        counts = Counter(zip(rest["state"], rest["cause"].fillna(""), strict=True))
        lost = [f"{n} {state}: {cause}" if cause else f"{n} {state}" for (state, cause), n in counts.items()]
        return f"{len(self.done)} of {len(self.runs)} seeds: {'; '.join(lost)}" if lost else ""


@dataclass(frozen=True)
class Table:
    """The cells of one study, data set and protocol, in the study's order, teachers and baselines first."""

    study: Study
    dataset: str
    protocol: str
    cells: tuple[Cell, ...]

    @cached_property
    def varying(self) -> list[str]:
        """Settings and factors that tell apart cells of the same labels; of settings, those that no level tells already."""
        by_label: dict[tuple, list[dict]] = {}
        for cell in self.cells:
            by_label.setdefault(tuple(cell.labels.values()), []).append(cell.factors | cell.settings)
        groups = by_label.values()
        found = {path for group in groups for path in _differing(group)}
        factors = [path for path in self.factor_paths if path in found]
        settings = sorted(found.difference(factors))
        return [*factors, *(path for path in settings if not any(_tells(factor, path, groups) for factor in factors))]

    @cached_property
    def factor_paths(self) -> list[str]:
        """The study's factors, in its order."""
        return list(dict.fromkeys(path for cell in self.cells for path in cell.factors))

    @property
    def paths(self) -> list[str]:
        """The columns of tables.parquet that are the table's own; of another study, `fidelity` may be another."""
        return list(dict.fromkeys([*self.factor_paths, *self.varying, "fidelity"]))

    def value(self, cell: Cell, path: str):
        """A cell's setting or factor; None where it does not read it."""
        return cell.settings.get(path, cell.factors.get(path))

    def baseline(self, cell: Cell) -> Cell | None:
        """The one Baseline cell of the same backbone that differs in the method only; None for itself or in doubt.

        A teacher is no student to be compared: it has none.
        """
        if cell.labels["method"] == TEACHER:
            return None
        found = [c for c in self.cells if c.labels["method"] == BASELINE and _comparable(c, cell)]
        found = [c for c in found if c.labels["loss"] == "SI"] or found  # the published Baseline
        return found[0] if len(found) == 1 and found[0] is not cell else None

    @cached_property
    def results(self) -> pd.DataFrame:
        """Statistics over seeds, indexed by (position of the cell, metric); see `aggregate` for the columns."""
        frame = pd.DataFrame([row for cell in self.cells for row in _rows(self, cell)])
        frame["p_holm"] = frame.groupby("metric")["p_value"].transform(lambda p: holm(p.to_numpy()))
        frame.index = pd.MultiIndex.from_product([range(len(self.cells)), METRICS], names=["cell", "metric"])
        # Object columns keep None, numbers and text of different tables apart until all are known.
        return frame.astype(dict.fromkeys(self.paths, object))


def tables_of(collected: Collected) -> list[Table]:
    """Every table of the store; runs whose config cannot be read have no place in one."""
    runs = collected.runs.join(collected.identities)
    runs = runs.loc[runs["settings"].notna()]
    tables = []
    for (study, dataset, protocol), part in runs.groupby(["study", "dataset", "protocol"], sort=False):
        cells = sorted(_cells(part), key=_rank)
        tables.append(Table(collected.studies.get(study, Study(study)), dataset, protocol, tuple(cells)))
    return tables


def _cells(runs: pd.DataFrame) -> Iterable[Cell]:
    """Runs of equal settings; a run that the study names twice counts once, under its first name."""
    runs = runs.assign(key=[json.dumps(settings, sort_keys=True) for settings in runs["settings"]])
    runs = runs.drop_duplicates(["key", "seed", "run_id"])
    # Runs alike in all but the contents of their inputs would share a seed: each is a cell of its own, never an average.
    repeat = runs.groupby(["key", "seed"], sort=False).cumcount()
    for _, part in runs.groupby(["key", repeat], sort=False):
        first = part.iloc[0]
        plain = part.drop(columns=["key", "settings", "factors"]).reset_index(drop=True)
        yield Cell({name: first[name] for name in LABELS}, first["settings"], first["factors"], plain)


def _rank(cell: Cell) -> int:
    method = cell.labels["method"]
    return FIRST.index(method) if method in FIRST else len(FIRST)


def _tells(factor: str, path: str, groups: Collection[list[dict]]) -> bool:
    """Whether in every group of cells those of one level of the factor agree on a setting."""
    by_level: dict[tuple, set[str]] = {}
    for number, group in enumerate(groups):
        for cell in group:
            by_level.setdefault((number, json.dumps(cell.get(factor))), set()).add(json.dumps(cell.get(path)))
    return all(len(values) == 1 for values in by_level.values())


def _differing(cells: list[dict]) -> set[str]:
    paths = {path for cell in cells for path in cell}
    return {path for path in paths if len({json.dumps(cell.get(path)) for cell in cells}) > 1}


def _comparable(baseline: Cell, cell: Cell) -> bool:
    if (baseline.labels["backbone"], baseline.fidelity) != (cell.labels["backbone"], cell.fidelity):
        return False
    shared = baseline.settings.keys() & cell.settings.keys()
    return all(baseline.settings[p] == cell.settings[p] for p in shared if not p.startswith(METHOD_SETTINGS))


def aggregate(tables: Iterable[Table]) -> pd.DataFrame:
    """`tables.parquet`: one row per cell and metric.

    state is "done" only where every seed is; mean and std are over the n_seeds that are done of n_planned, and `detail` says
    what became of the others. difference is mean - published, baseline_difference the mean over seeds of cell - baseline,
    p_value its sign-flip test and p_holm that corrected over the table's rows.
    """
    tables = list(tables)
    paths = list(dict.fromkeys(path for t in tables for path in t.paths))
    columns = [*TABLE_KEYS, *paths, *TABLE_VALUES]
    parts = [table.results.reindex(columns=columns) for table in tables]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return frame.assign(**{path: _one_type(frame[path]) for path in paths})


def _rows(table: Table, cell: Cell) -> Iterable[dict]:
    baseline = table.baseline(cell)
    shared = {
        "table": table.study.name,
        **cell.labels,
        **{path: table.value(cell, path) for path in table.paths},
        "protocol": table.protocol,
        "state": cell.state,
        "run_ids": cell.run_ids,
        "n_planned": len(cell.runs),
        "detail": cell.detail,
    }
    for metric in METRICS:
        over_seeds = spread(cell.done[metric].dropna())
        published = published_value(cell.labels, table.protocol, metric)
        pairs = paired_differences(cell.done[metric], baseline.done[metric]) if baseline else np.array([])
        yield shared | {
            "metric": metric,
            "mean": over_seeds.mean,
            "std": over_seeds.std,
            "n_seeds": over_seeds.n,
            "ci_low": over_seeds.ci_low,
            "ci_high": over_seeds.ci_high,
            "published": float(published) if published else np.nan,
            "difference": over_seeds.mean - float(published) if published else np.nan,
            "baseline_difference": pairs.mean() if pairs.size else np.nan,
            "p_value": sign_flip_p(pairs),
        }


def _one_type(values: pd.Series) -> pd.Series:
    """A factor's column: numbers where all its values are, text otherwise."""
    present = values.dropna()
    if len(present) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        return pd.to_numeric(values)
    return values.map(lambda v: v if isinstance(v, str) else json.dumps(v), na_action="ignore").astype("string")
