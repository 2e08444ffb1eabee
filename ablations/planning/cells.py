"""The cells of a study: all combinations of its factors' levels, or one factor at a time, each with every seed."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.planning.study import MAX_CELLS, Factors, Levels, StudyConfig, factor_paths
from tiekd.config import RunConfig, build, with_complete_teacher
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
        """The label columns of report tables and the seed, as configs write them."""
        return config_names(self.config) | {"seed": str(self.config.seed)}

    @property
    def filter_values(self) -> dict[str, str]:
        """The values that `--only` compares: the labels, and the factors' levels, which take precedence."""
        return self.labels | {name: str(level) for name, level in self.factors.items()}

    def __str__(self) -> str:
        return study_cell_name(self.factors, self.config.seed)


def study_cell_name(factors: Mapping[str, Any], seed: int) -> str:
    """Return the name of a cell in displays and logs."""
    levels = [f"{name}={level:.6g}" if isinstance(level, float) else f"{name}={level}" for name, level in factors.items()]
    return ", ".join([*levels, f"seed={seed}"])


@dataclass(frozen=True)
class FactorLevel:
    """One level of a factor and the settings that it changes."""

    label: Any
    changes: dict[str, Any]


def expand_cells(study: StudyConfig) -> list[StudyCell]:
    """Return all cells in the order of the study. Raises UserError for contradicting factors and for invalid configs."""
    sizes = ([len(levels) for levels in block.values()] for block in study.blocks)
    count = len(study.all_seeds) * sum(math.prod(each) if study.vary == "grid" else 1 + sum(each) for each in sizes)
    if count > MAX_CELLS:
        raise UserError(f"study {study.name}: has {count} cells; at most {MAX_CELLS} are planned")
    cells = []
    for block in study.blocks:
        factors = {name: _factor_levels(study, name, levels) for name, levels in block.items()}
        _refuse_overlap(study, block)
        combinations = _grid(factors) if study.vary == "grid" else _one_at_a_time(factors)
        cells += [_make_cell(study, combination, seed) for combination in combinations for seed in study.all_seeds]
    if not cells:
        raise UserError(f"study {study.name}: has no cells; factors must be a mapping, or a list of at least one mapping")
    return cells


def _factor_levels(study: StudyConfig, name: str, levels: Levels) -> list[FactorLevel]:
    if not levels:
        raise UserError(f"study {study.name}: factor {name} has no levels")
    if isinstance(levels, dict):
        return [FactorLevel(label, changes) for label, changes in levels.items()]
    if len({repr(value) for value in levels}) != len(levels):
        raise UserError(f"study {study.name}: factor {name}: must not repeat a level, got {levels}")
    return [FactorLevel(value, {name: value}) for value in levels]


def _refuse_overlap(study: StudyConfig, block: Factors) -> None:
    for (a, levels_a), (b, levels_b) in itertools.combinations(block.items(), 2):
        if shared := factor_paths(a, levels_a) & factor_paths(b, levels_b):
            raise UserError(
                f"study {study.name}: factors {a} and {b} contradict: both set {', '.join(sorted(shared))}; "
                "only one factor may set it"
            )


def _grid(factors: dict[str, list[FactorLevel]]) -> Iterator[dict[str, FactorLevel]]:
    for levels in itertools.product(*factors.values()):
        yield dict(zip(factors, levels, strict=True))


def _one_at_a_time(factors: dict[str, list[FactorLevel]]) -> Iterator[dict[str, FactorLevel]]:
    """Yield the base itself, then each level of each factor while the other factors keep the base's settings."""
    yield {}
    for name, levels in factors.items():
        for level in levels:
            yield {name: level}


def _make_cell(study: StudyConfig, combination: dict[str, FactorLevel], seed: int) -> StudyCell:
    changes = {path: value for level in combination.values() for path, value in level.changes.items()}
    factors = {name: level.label for name, level in combination.items()}
    cell = ", ".join(f"{name}={label}" for name, label in factors.items()) or "base"
    document = with_values(study.base, {**changes, "seed": seed})
    # A cell's own loss, optimizer and so on are not its teacher's, but its data is.
    document = with_complete_teacher(document, {**study.base, "data": document.get("data")})
    config = build(document, source=f"study {study.name}, cell {cell}")
    return StudyCell(config, factors)


def choose_shard(cells: list[StudyCell], shard: str | None) -> list[StudyCell]:
    """Return every n-th cell, from the i-th, for the shard "i/n"; all without one. Raises UserError for any other text."""
    if shard is None:
        return cells
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    first, n_shards = map(int, found.groups()) if found else (0, 0)
    if not 1 <= first <= n_shards <= len(cells):
        raise UserError(f"--shard {shard}: expected I/N with 1 <= I <= N <= {len(cells)}, the number of cells")
    return cells[first - 1 :: n_shards]


def filter_cells(cells: list[StudyCell], filters: Sequence[str]) -> list[StudyCell]:
    """Return the cells whose labels or factor levels match every "name=value". Raises UserError if none matches one."""
    for text in filters:
        name, equals, value = text.partition("=")
        known = {key for cell in cells for key in cell.filter_values}
        if not equals or name not in known:
            raise UserError(f"--only {text!r}: expected name=value, where name is one of {', '.join(sorted(known))}")
        values = {cell.filter_values.get(name, "") for cell in cells}
        if value not in values:
            raise UserError(f"--only {text!r}: no such cell; {name} is one of {', '.join(sorted(values))}")
        cells = [cell for cell in cells if cell.filter_values.get(name, "") == value]
    return cells
