"""Search spaces: dotted config paths and the values they may take.

parameters:
  loss.name: {type: categorical, choices: [tie_kd, l_dpm, ssim]}
  loss.temperature: {type: float, low: 0.05, high: 20, log: true, when: {loss.name: [tie_kd, l_dpm]}}
  loss.alpha: {type: float, low: 0, high: 1, points: 5, when: {loss.name: [tie_kd]}}
  bins.n_bins: {type: int, low: 32, high: 256, step: 32}

- `type` float or int: a range from `low` to `high`, both included. `log: true` searches on a logarithmic scale; `step` leaves
  only low, low + step, ... A sampler that needs a grid takes the steps, or with `points: N` N values from low to high, evenly
  spaced on the range's scale (rounded and each once, for int); an int range without either gives all its numbers.
- `type` categorical: one of `choices`, in no order.
- `when`: the parameter is active only where each setting that it names has one of the values listed. The setting is another
  parameter (an inactive one has no value, so that what depends on it is inactive, too) or any other setting of the study's base
  config. An inactive parameter is not part of a point: its setting stays what the base config says. Circles are refused.
"""

import graphlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from search_spaces.parameters import PARAMETER_TYPES, Choice, Parameter, TrialLike
from tiekd.config import Section
from tiekd.config.documents import explain, flatten, read_document
from tiekd.errors import UserError, unknown

SPACES_FOLDER = Path(__file__).parent
Point = dict[str, Any]  # values of the active parameters by dotted config path


class SearchSpace(Section):
    """Parameters by dotted config path."""

    parameters: dict[str, Parameter] = Field(min_length=1)

    @field_validator("parameters", mode="before")
    @classmethod
    def _explained(cls, parameters: Any) -> Any:
        """Refuse a parameter by its path and with the settings of its own kind."""
        for path, document in parameters.items() if isinstance(parameters, Mapping) else ():
            kind = PARAMETER_TYPES.get(document.get("type")) if isinstance(document, Mapping) else None
            try:
                _ = kind and kind.model_validate(document)
            except ValidationError as error:
                raise ValueError(f"{path}: {explain(error, kind)}") from None
        return parameters

    @model_validator(mode="after")
    def _conditions_hold(self) -> "SearchSpace":
        try:
            _ = self._parents_first
        except graphlib.CycleError as error:
            raise ValueError(f"when: parameters depend on each other in a circle: {' -> '.join(error.args[1])}") from None
        for path, parameter in self.parameters.items():
            for parent, values in parameter.when.items():
                if parent in self.parameters and not any(map(self.parameters[parent].contains, values)):
                    raise ValueError(f"{path}: when: in this space {parent} is never {' or '.join(map(repr, values))}")
        return self

    @cached_property
    def _parents_first(self) -> list[str]:
        """The parameters in an order in which each follows those that it depends on."""
        parents = {path: [p for p in self.parameters[path].when if p in self.parameters] for path in self.parameters}
        return list(graphlib.TopologicalSorter(parents).static_order())

    def of(self, document: Mapping[str, Any]) -> "SearchSpace":
        """What a study's base config leaves of the space: conditions on settings that do not vary are decided.

        `document` is the base's full document. Raises UserError for a path that names no setting, and where no parameter
        can be active.
        """
        settings = flatten(document)
        for path, parameter in self.parameters.items():
            for name in (path, *parameter.when):
                if name not in settings:
                    raise UserError(_unknown_path(name, settings))
        kept: dict[str, Any] = {}
        for path in self._parents_first:
            when = self.parameters[path].when
            varying = {name: values for name, values in when.items() if name in self.parameters}
            decided = all(settings[name] in values for name, values in when.items() if name not in varying)
            if decided and varying.keys() <= kept.keys():
                kept[path] = self.parameters[path].model_copy(update={"when": varying})
        if not kept:
            told = {name: settings[name] for parameter in self.parameters.values() for name in parameter.when}
            listed = ", ".join(f"{name} {value!r}" for name, value in told.items() if name not in self.parameters)
            raise UserError(f"search space: none of {', '.join(self.parameters)} is active where the base config has {listed}")
        return SearchSpace(parameters={path: kept[path] for path in self.parameters if path in kept})

    @property
    def conditional(self) -> list[str]:
        """The parameters that are active only sometimes."""
        return [path for path, parameter in self.parameters.items() if parameter.when]

    @property
    def categorical(self) -> list[str]:
        """The parameters whose values have no order."""
        return [path for path, parameter in self.parameters.items() if isinstance(parameter, Choice)]

    def suggest(self, trial: TrialLike) -> Point:
        """One point, drawn through an Optuna trial."""
        point: Point = {}
        for path in self._parents_first:
            if self._active(path, point):
                point[path] = self.parameters[path].suggest(path, trial)
        return self._ordered(point)

    def read(self, settings: Mapping[str, Any]) -> Point | None:
        """The point that a config's settings (by dotted path) lie at; None outside the space."""
        point: Point = {}
        for path in self._parents_first:
            if self._active(path, point):
                if not self.parameters[path].contains(settings.get(path)):
                    return None
                point[path] = settings[path]
        return self._ordered(point)

    def grid(self) -> list[Point]:
        """Every combination of the parameters' grid values, each once. Raises UserError for a range without a grid."""
        points: list[Point] = [{}]
        for path in self._parents_first:
            values = self.parameters[path].grid()
            if values is None:
                raise UserError(f"search space: a grid needs points (or step) for the continuous range of {path}")
            points = [
                {**point, **change}
                for point in points
                for change in ([{path: value} for value in values] if self._active(path, point) else [{}])
            ]
        return [self._ordered(point) for point in points]

    def _active(self, path: str, point: Point) -> bool:
        return all(name in point and point[name] in values for name, values in self.parameters[path].when.items())

    def _ordered(self, point: Point) -> Point:
        return {path: point[path] for path in self.parameters if path in point}


def _unknown_path(path: str, known: Mapping[str, Any]) -> str:
    section = path.split(".")[0]
    return unknown("search space: no such setting", path, [p for p in known if p.startswith(f"{section}.")] or known)


def load_space(name: str, beside: Path | None = None) -> SearchSpace:
    """A space by file name: one of this folder's, else a file next to `beside`, where the study that names it lies."""
    candidates = [SPACES_FOLDER / name, *([beside / name] if beside else []), Path(name)]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        own = ", ".join(sorted(p.name for p in SPACES_FOLDER.glob("*.yaml")))
        raise UserError(f"search space {name!r}: no such file; of search_spaces/: {own}")
    try:
        return SearchSpace.model_validate(read_document(path, "search space"))
    except ValidationError as error:
        raise UserError(f"search space {path}: {explain(error, SearchSpace)}") from None
