"""From a study to its cells: grid or one at a time, times seeds."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ablations.planning.study import Factors, Levels, StudyConfig, factor_paths
from tiekd.config import RunConfig, build
from tiekd.config.documents import with_values
from tiekd.config.labels import config_names
from tiekd.errors import UserError


@dataclass(frozen=True)
class StudyCell:
    """One run of a study: its config and the level of each factor."""

    config: RunConfig
    factors: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        """What its config is, in the columns of the tables and the words of configs."""
        return config_names(self.config) | {"seed": str(self.config.seed)}

    @property
    def names(self) -> dict[str, str]:
        """What `--only` chooses by: its labels, and its factors' levels before them."""
        return self.labels | {name: str(level) for name, level in self.factors.items()}

    def __str__(self) -> str:
        return cell_name(self.factors, self.config.seed)


def cell_name(factors: Mapping[str, Any], seed: int) -> str:
    """What a cell is called on screens and in logs."""
    levels = [f"{name}={level:.6g}" if isinstance(level, float) else f"{name}={level}" for name, level in factors.items()]
    return ", ".join([*levels, f"seed={seed}"])


@dataclass(frozen=True)
class FactorLevel:
    """One setting of one factor."""

    label: Any
    changes: dict[str, Any]


def expand_cells(study: StudyConfig) -> list[StudyCell]:
    """All cells, in the study's order, each combination once per seed."""
    cells = []
    for block in study.blocks:
        factors = {name: _levels(study, name, levels) for name, levels in block.items()}
        _refuse_overlap(study, block)
        combinations = _grid(factors) if study.vary == "grid" else _one_at_a_time(factors)
        for combination in combinations:
            cells += [_cell(study, combination, seed) for seed in study.seeds]
    if not cells:
        raise UserError(f"study {study.name}: has no cells; factors is a mapping, or a list of at least one")
    return cells


def _levels(study: StudyConfig, name: str, levels: Levels) -> list[FactorLevel]:
    if not levels:
        raise UserError(f"study {study.name}: factor {name} has no levels")
    if isinstance(levels, dict):
        return [FactorLevel(label, changes) for label, changes in levels.items()]
    if len({repr(value) for value in levels}) != len(levels):
        raise UserError(f"study {study.name}: factor {name}: each level once, got {levels}")
    return [FactorLevel(value, {name: value}) for value in levels]


def _refuse_overlap(study: StudyConfig, block: Factors) -> None:
    for (a, levels_a), (b, levels_b) in itertools.combinations(block.items(), 2):
        if shared := factor_paths(a, levels_a) & factor_paths(b, levels_b):
            raise UserError(
                f"study {study.name}: factors {a} and {b} contradict: both set {', '.join(sorted(shared))}; "
                "a setting belongs to one factor"
            )


def _grid(factors: dict[str, list[FactorLevel]]) -> Iterator[dict[str, FactorLevel]]:
    for levels in itertools.product(*factors.values()):
        yield dict(zip(factors, levels, strict=True))


def _one_at_a_time(factors: dict[str, list[FactorLevel]]) -> Iterator[dict[str, FactorLevel]]:
    """The base itself, then each level of each factor with the others at the base's."""
    yield {}
    for name, levels in factors.items():
        for level in levels:
            yield {name: level}


def _cell(study: StudyConfig, combination: dict[str, FactorLevel], seed: int) -> StudyCell:
    changes = {path: value for level in combination.values() for path, value in level.changes.items()}
    factors = {name: level.label for name, level in combination.items()}
    where = ", ".join(f"{name}={label}" for name, label in factors.items()) or "base"
    config = build(with_values(study.base, {**changes, "seed": seed}), source=f"study {study.name}, cell {where}")
    return StudyCell(config, factors)


def filter_cells(cells: list[StudyCell], filters: list[str]) -> list[StudyCell]:
    """The cells whose labels or factors equal every 'name=value'."""
    for text in filters:
        name, equals, value = text.partition("=")
        known = {key for cell in cells for key in cell.names}
        if not equals or name not in known:
            raise UserError(f"--only {text!r}: expected name=value with a name of {', '.join(sorted(known))}")
        values = {cell.names.get(name, "") for cell in cells}
        if value not in values:
            raise UserError(f"--only {text!r}: no such cell; {name} is one of {', '.join(sorted(values))}")
        cells = [cell for cell in cells if cell.names.get(name, "") == value]
    return cells
