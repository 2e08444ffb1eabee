"""Search spaces: dotted config paths and the values they may take.

parameters:
  loss.temperature: {type: float, low: 0.05, high: 20, log: true}
  bins.n_bins: {type: int, low: 32, high: 256, step: 32}
  bins.spacing: {type: categorical, choices: [uniform, log]}
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, ValidationError, field_validator, model_validator

from tiekd.config import Section
from tiekd.documents import explain, flatten, read_document
from tiekd.errors import UserError, unknown

FOLDER = Path(__file__).parent


class Trial(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


class _Interval(Section):
    log: bool = Field(False, description="search on a logarithmic scale")

    @model_validator(mode="after")
    def _consistent(self) -> "_Interval":
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range must be positive, got low {self.low}")
        if self.log and self.step not in (None, 1):
            raise ValueError("a logarithmic range has no step")
        return self


class FloatRange(_Interval):
    type: Literal["float"]
    low: float
    high: float
    step: float | None = Field(None, gt=0)

    def suggest(self, name: str, trial: Trial) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


class IntRange(_Interval):
    type: Literal["int"]
    low: int
    high: int
    step: int = Field(1, ge=1)

    def suggest(self, name: str, trial: Trial) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)


class Choice(Section):
    type: Literal["categorical"]
    choices: tuple[str | int | float | bool, ...] = Field(min_length=1)

    def suggest(self, name: str, trial: Trial) -> Any:
        return trial.suggest_categorical(name, self.choices)


KINDS = {"float": FloatRange, "int": IntRange, "categorical": Choice}
Parameter = Annotated[FloatRange | IntRange | Choice, Field(discriminator="type")]


class Space(Section):
    """Parameters by dotted config path."""

    parameters: dict[str, Parameter] = Field(min_length=1)

    @field_validator("parameters", mode="before")
    @classmethod
    def _explained(cls, parameters: Any) -> Any:
        """Refuse a parameter by its path and with the settings of its own kind."""
        for path, document in parameters.items() if isinstance(parameters, Mapping) else ():
            kind = KINDS.get(document.get("type")) if isinstance(document, Mapping) else None
            try:
                _ = kind and kind.model_validate(document)
            except ValidationError as error:
                raise ValueError(f"{path}: {explain(error, kind)}") from None
        return parameters

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """One point, drawn through an Optuna trial: config overrides by dotted path."""
        return {path: parameter.suggest(path, trial) for path, parameter in self.parameters.items()}

    def check_paths(self, document: Mapping[str, Any]) -> None:
        """Raise UserError for a path that names no setting of a full config document."""
        known = flatten(document)
        for path in self.parameters:
            if path not in known:
                raise UserError(_unknown_path(path, known))


def _unknown_path(path: str, known: Mapping[str, Any]) -> str:
    section = path.split(".")[0]
    return unknown("search space: no such setting", path, [p for p in known if p.startswith(f"{section}.")] or known)


def load_space(name: str, beside: Path | None = None) -> Space:
    """A space by file name: one of this folder's, else a file next to `beside`, where the study that names it lies."""
    candidates = [FOLDER / name, *([beside / name] if beside else []), Path(name)]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        own = ", ".join(sorted(p.name for p in FOLDER.glob("*.yaml")))
        raise UserError(f"search space {name!r}: no such file; of search_spaces/: {own}")
    try:
        return Space.model_validate(read_document(path, "search space"))
    except ValidationError as error:
        raise UserError(f"search space {path}: {explain(error, Space)}") from None
