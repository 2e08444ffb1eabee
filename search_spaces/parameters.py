"""The kinds of parameters: what each may be drawn from, and its values in a grid."""

from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from tiekd.config import Section

Value = str | int | float | bool


class TrialLike(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


class _Parameter(Section):
    when: dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]] = Field(
        {}, description="the parameter is active only where each of these settings has one of the values listed for it"
    )


class _Interval(_Parameter):
    log: bool = Field(False, description="search on a logarithmic scale")
    points: int | None = Field(None, ge=2, description="values in a grid, from low to high, evenly spaced on the scale")

    @model_validator(mode="after")
    def _consistent(self) -> "_Interval":
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must be positive, got low {self.low}")
        if self.log and self.step not in (None, 1):
            raise ValueError("a logarithmic range has no step")
        if self.points and self.step not in (None, 1):
            raise ValueError(f"points and step both make a grid: give one, got points {self.points} and step {self.step:g}")
        return self

    def _spaced(self) -> list[float]:
        """`points` values from low to high."""
        shares = [index / (self.points - 1) for index in range(self.points)]
        inner = shares[1:-1]
        if self.log:
            return [self.low, *(self.low * (self.high / self.low) ** share for share in inner), self.high]
        return [self.low, *(self.low + (self.high - self.low) * share for share in inner), self.high]


class FloatRange(_Interval):
    type: Literal["float"]
    low: float
    high: float
    step: float | None = Field(None, gt=0)

    def suggest(self, name: str, trial: TrialLike) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Any) -> bool:
        return _is_number(value) and self.low <= value <= self.high and (not self.step or self._on_step(value))

    def _on_step(self, value: float) -> bool:
        steps = (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-8

    def grid(self) -> list[float] | None:
        """Its values in a grid; None for a continuous range."""
        if self.points:
            return self._spaced()
        if self.step:
            steps = int((self.high - self.low) / self.step + 1e-8)
            return [min(self.low + self.step * k, self.high) for k in range(steps + 1)]
        return None


class IntRange(_Interval):
    type: Literal["int"]
    low: int
    high: int
    step: int = Field(1, ge=1)

    def suggest(self, name: str, trial: TrialLike) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Any) -> bool:
        whole = _is_number(value) and value == int(value)
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def grid(self) -> list[int] | None:
        """Its values in a grid, each once; None for a logarithmic range without points."""
        if self.points:
            return list(dict.fromkeys(round(value) for value in self._spaced()))
        return None if self.log else list(range(self.low, self.high + 1, self.step))


class Choice(_Parameter):
    type: Literal["categorical"]
    choices: tuple[Value, ...] = Field(min_length=1)

    def suggest(self, name: str, trial: TrialLike) -> Any:
        return trial.suggest_categorical(name, self.choices)

    def contains(self, value: Any) -> bool:
        return value in self.choices

    def grid(self) -> list[Value]:
        """Its values in a grid."""
        return list(self.choices)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


PARAMETER_TYPES = {"float": FloatRange, "int": IntRange, "categorical": Choice}
Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="type")]
