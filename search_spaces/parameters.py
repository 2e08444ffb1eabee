"""The parameter types of a search space: float range, int range and categorical choice."""

import json
import math
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, field_validator, model_validator

from tiekd.config import Section
from tiekd.config.setting_types import plain_setting
from tiekd.errors import UserError

MAX_POINTS = 100_000  # of a grid
Value = str | int | float | bool | None
Choices = tuple[Value | list[Value], ...]


class TrialLike(Protocol):
    """The methods of an Optuna trial that a search space calls."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def _setting(path: str, what: str, value: Any) -> Any:
    try:
        return plain_setting(path, value)
    except UserError as error:
        raise UserError(f"search space: {path}: {what}: {error}") from None


def to_optuna(value: Any) -> Value:
    """Return a value as Optuna stores it, which knows no lists: a list becomes its JSON."""
    return json.dumps(value) if isinstance(value, list) else value


def from_optuna(value: Value) -> Any:
    """Return the value that `to_optuna` has encoded."""
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value


class _Parameter(Section):
    when: dict[str, Annotated[Choices, Field(min_length=1)]] = Field(
        {}, description="the parameter is active only if each of these settings has one of the values listed for it"
    )

    def as_setting(self, path: str) -> Self:
        """Return the parameter with the values that its setting, and those of its conditions, take.

        Raises UserError for a value that a setting does not take.
        """
        when = {parent: tuple(_setting(parent, "when", value) for value in values) for parent, values in self.when.items()}
        return self.model_copy(update={"when": when} | self._values_of(path))

    def _values_of(self, path: str) -> dict[str, Any]:
        raise NotImplementedError


class _Range(_Parameter):
    low: float
    high: float
    step: float | None = None
    log: bool = Field(False, description="search on a logarithmic scale")
    points: int | None = Field(
        None, ge=2, le=MAX_POINTS, description="number of grid values from low to high, evenly spaced on the scale"
    )

    @model_validator(mode="after")
    def _check_consistent(self) -> "_Range":
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must be positive, got low {self.low}")
        if self.step not in (None, 1):
            if self.log:
                raise ValueError("a logarithmic range has no step")
            if self.points:
                raise ValueError(f"points and step both define a grid: give one, got points {self.points}, step {self.step:g}")
        return self

    def _values_of(self, path: str) -> dict[str, Any]:
        """Check the ends, and for a range of real numbers one between them, which a setting of whole numbers does not take."""
        _setting(path, "low", self.low)
        _setting(path, "high", self.high)
        _setting(path, "type", self.low + (self.step or (self.high - self.low) / math.pi))
        return {}

    def _evenly_spaced(self, points: int) -> list[float]:
        """Return `points` values from low to high."""
        shares = [index / (points - 1) for index in range(1, points - 1)]
        if self.log:
            return [self.low, *(self.low * (self.high / self.low) ** share for share in shares), self.high]
        return [self.low, *(self.low + (self.high - self.low) * share for share in shares), self.high]


class FloatRange(_Range):
    """A range of real numbers, both ends included; with `step`, only low, low + step, ..."""

    type: Literal["float"]
    step: float | None = Field(None, gt=0)

    def suggest(self, name: str, trial: TrialLike) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Any) -> bool:
        if not _is_number(value) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-8

    def grid(self) -> list[float] | None:
        """Return its values in a grid; None if the range has neither points nor step."""
        if self.points:
            return self._evenly_spaced(self.points)
        if self.step:
            steps = int((self.high - self.low) / self.step + 1e-8)
            _check_count(steps + 1)
            return [min(self.low + self.step * k, self.high) for k in range(steps + 1)]
        return None


class IntRange(_Range):
    """A range of integers, both ends included; with `step`, only low, low + step, ..."""

    type: Literal["int"]
    low: int
    high: int
    step: int = Field(1, ge=1)

    def suggest(self, name: str, trial: TrialLike) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Any) -> bool:
        is_whole = _is_number(value) and value == int(value)
        return is_whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def grid(self) -> list[int] | None:
        """Return its distinct values in a grid; None for a logarithmic range without points."""
        if self.points:
            return list(dict.fromkeys(round(value) for value in self._evenly_spaced(self.points)))
        if self.log:
            return None
        _check_count((self.high - self.low) // self.step + 1)
        return list(range(self.low, self.high + 1, self.step))


class Choice(_Parameter):
    """One of several values without an order."""

    type: Literal["categorical"]
    choices: Choices = Field(min_length=1)

    @field_validator("choices")
    @classmethod
    def _check_texts(cls, choices: Choices) -> Choices:
        for choice in choices:
            if isinstance(choice, str) and choice.startswith("["):
                raise ValueError(f"choices: a text cannot begin with '[', got {choice!r}; a list has no quotes")
        return choices

    @property
    def labels(self) -> tuple[Value, ...]:
        """The choices as Optuna stores them."""
        return tuple(map(to_optuna, self.choices))

    def _values_of(self, path: str) -> dict[str, Any]:
        choices = tuple(_setting(path, "choices", choice) for choice in self.choices)
        if len({json.dumps(choice) for choice in choices}) != len(choices):
            raise UserError(f"search space: {path}: choices: must not repeat a value, got {list(choices)}")
        return {"choices": choices}

    def suggest(self, name: str, trial: TrialLike) -> Any:
        return from_optuna(trial.suggest_categorical(name, self.labels))

    def contains(self, value: Any) -> bool:
        return value in self.choices

    def grid(self) -> list[Any]:
        """Return its values in a grid."""
        return list(self.choices)


def _check_count(count: int) -> None:
    if count > MAX_POINTS:
        raise UserError(f"search space: a range of {count} values; a grid has at most {MAX_POINTS}; give points or step")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="type")]
PARAMETER_TYPES: dict[str, type[FloatRange | IntRange | Choice]] = {
    "float": FloatRange,
    "int": IntRange,
    "categorical": Choice,
}
