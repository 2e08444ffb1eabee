"""Constraints of a search: bounds on metrics and on the measured cost of a trial's student."""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tiekd.errors import unknown

OPERATORS = ("<=", ">=")
INFEASIBLE = "infeasible"  # state of a trial that violates a constraint
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


@dataclass(frozen=True)
class Constraint:
    """A bound on a number of a trial, which is a mean over seeds."""

    name: str
    operator: str
    limit: float

    def __str__(self) -> str:
        return f"{self.name} {self.operator} {self.limit:.12g}"

    def violation(self, value: float) -> float:
        """How far a value is on the wrong side of the limit, as a share of it; at most 0 if it is on the right side.

        Samplers add the violations of several constraints, whose units differ.
        """
        beyond = value - self.limit if self.operator == "<=" else self.limit - value
        return beyond / (abs(self.limit) or 1.0)


def parse_constraint(text: str, names: Collection[str]) -> Constraint:
    """Parse `name <= number` or `name >= number`. Raises ValueError for anything else, and for a name outside `names`."""
    found = re.fullmatch(r"\s*([^\s<>=!]+)\s*([<>=!]+)\s*([^\s<>=!]+)\s*", text)
    if not found:
        raise ValueError(f"search.constraints: expected 'name <= number' or 'name >= number', got {text!r}")
    name, operator, number = found.groups()
    if name not in names:
        raise ValueError(unknown("search.constraints", name, names))
    if operator not in OPERATORS:
        raise ValueError(f"search.constraints: expected {' or '.join(OPERATORS)}, got {operator!r} in {text!r}")
    if not re.fullmatch(_NUMBER, number) or not math.isfinite(float(number)):
        raise ValueError(f"search.constraints: expected a number such as 20 or 5e6, got {number!r} in {text!r}")
    return Constraint(name, operator, float(number))


def violated(constraints: Iterable[Constraint], values: Mapping[str, float]) -> str:
    """Return the constraints that the known values violate, with the values; empty if none."""
    known = ((c, values[c.name]) for c in constraints if c.name in values)
    return "; ".join(f"{c.name} {_shown(value)}, limit {c.limit:.12g}" for c, value in known if c.violation(value) > 0)


def _shown(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.6g}"
