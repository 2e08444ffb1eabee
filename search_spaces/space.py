"""Search spaces: dotted config paths and the values they may take.

parameters:
  loss.name: {type: categorical, choices: [tie_kd, l_dpm, ssim]}
  loss.temperature: {type: float, low: 0.05, high: 20, log: true, when: {loss.name: [tie_kd, l_dpm]}}
  loss.alpha: {type: float, low: 0, high: 1, points: 5, when: {loss.name: [tie_kd]}}
  bins.n_bins: {type: int, low: 32, high: 256, step: 32}

- `type` float or int: a range from `low` to `high`, both included. `log: true` searches on a logarithmic scale. `step` allows
  only low, low + step, ... For a grid, a range gives its steps, or with `points: N` N values from low to high, evenly spaced
  on its scale (for int: rounded, without duplicates). An int range with neither gives all its integers.
- `type` categorical: one of `choices`, without an order: texts, numbers, true, false, null or lists.
- `when`: the parameter is active only if each setting listed has one of the values given. A setting is another parameter (if
  that one is inactive, so is this one) or any other setting of the study's base config. An inactive parameter is not part of a
  point: its setting keeps the value of the base config. Circular conditions are refused.
"""

import graphlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from search_spaces.parameters import MAX_POINTS, PARAMETER_TYPES, Choice, Parameter, TrialLike
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
    def _explain_parameter_errors(cls, parameters: Any) -> Any:
        """Validate each parameter with its own type first, so that an error names its path and only its own settings."""
        for path, document in parameters.items() if isinstance(parameters, Mapping) else ():
            model = PARAMETER_TYPES.get(str(document.get("type"))) if isinstance(document, Mapping) else None
            if model is None:
                continue  # the discriminated union reports it
            try:
                model.model_validate(document)
            except ValidationError as error:
                raise ValueError(f"{path}: {explain(error, model)}") from None
        return parameters

    @model_validator(mode="after")
    def _check_conditions(self) -> "SearchSpace":
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
        """The parameters' paths, each after those on which it depends."""
        parents = {path: [p for p in self.parameters[path].when if p in self.parameters] for path in self.parameters}
        return list(graphlib.TopologicalSorter(parents).static_order())

    def for_base(self, document: dict[str, Any]) -> "SearchSpace":
        """Return the space that remains for a base config, given its full document.

        Values become those that the settings take: 0.001 for 1e-3. Conditions on settings that do not vary are evaluated;
        parameters that can never be active are dropped. Raises UserError for a path that is not a setting, for values outside
        the limits of a setting, and if no parameter can be active.
        """
        settings = flatten(document)
        for path, parameter in self.parameters.items():
            for name in (path, *parameter.when):
                if name not in settings:
                    section = name.split(".")[0]
                    siblings = [known for known in settings if known.startswith(f"{section}.")]
                    raise UserError(unknown("search space: no such setting", name, siblings or settings))
        parameters = {path: parameter.as_setting(path) for path, parameter in self.parameters.items()}
        kept: dict[str, Any] = {}
        for path in self._parents_first:
            when = parameters[path].when
            varying = {name: values for name, values in when.items() if name in self.parameters}
            holds = all(settings[name] in values for name, values in when.items() if name not in varying)
            if holds and varying.keys() <= kept.keys():
                kept[path] = parameters[path].model_copy(update={"when": varying})
        if not kept:
            conditions = {name: settings[name] for parameter in self.parameters.values() for name in parameter.when}
            listed = ", ".join(f"{name} {value!r}" for name, value in conditions.items() if name not in self.parameters)
            raise UserError(f"search space: none of {', '.join(self.parameters)} is active if the base config has {listed}")
        return SearchSpace(parameters={path: kept[path] for path in self.parameters if path in kept})

    @property
    def conditional(self) -> list[str]:
        """Paths of the parameters that are not always active."""
        return [path for path, parameter in self.parameters.items() if parameter.when]

    @property
    def categorical(self) -> list[str]:
        """Paths of the parameters whose values have no order."""
        return [path for path, parameter in self.parameters.items() if isinstance(parameter, Choice)]

    def contexts(self, path: str) -> list[Point]:
        """Return points without a parameter in which it is active: the other parameters' values that make it so, and beside
        them each choice of each other parameter."""
        needed: Point = {}
        for name in reversed(self._parents_first):
            if name == path or name in needed:
                when = self.parameters[name].when
                needed |= {p: next(v for v in values if self.parameters[p].contains(v)) for p, values in when.items()} | needed
        free = {name: p for name, p in self.parameters.items() if isinstance(p, Choice) and name not in (path, *needed)}
        return [needed, *({**needed, name: choice} for name, p in free.items() for choice in p.choices)]

    def suggest(self, trial: TrialLike) -> Point:
        """Draw a point through an Optuna trial."""
        point: Point = {}
        for path in self._parents_first:
            if self._is_active(path, point):
                point[path] = self.parameters[path].suggest(path, trial)
        return self._in_document_order(point)

    def point_of(self, settings: Mapping[str, Any]) -> Point | None:
        """Return the point of a config's settings (by dotted path), or None if they are outside the space."""
        point: Point = {}
        for path in self._parents_first:
            if self._is_active(path, point):
                if path not in settings or not self.parameters[path].contains(settings[path]):
                    return None
                point[path] = settings[path]
        return self._in_document_order(point)

    def grid(self) -> list[Point]:
        """Return each combination of the parameters' grid values once. Raises UserError for a range without a grid."""
        points: list[Point] = [{}]
        for path in self._parents_first:
            values = self.parameters[path].grid()
            if values is None:
                raise UserError(f"search space: a grid needs points (or step) for the continuous range of {path}")
            if len(points) * len(values) > MAX_POINTS:
                raise UserError(f"search space: a grid has at most {MAX_POINTS} points, and this one has more")
            points = [
                {**point, **change}
                for point in points
                for change in ([{path: value} for value in values] if self._is_active(path, point) else [{}])
            ]
        return [self._in_document_order(point) for point in points]

    def _is_active(self, path: str, point: Point) -> bool:
        return all(name in point and point[name] in values for name, values in self.parameters[path].when.items())

    def _in_document_order(self, point: Point) -> Point:
        return {path: point[path] for path in self.parameters if path in point}


def load_space(name: str, beside: Path | None = None) -> SearchSpace:
    """Read a space by file name from this folder, else from `beside` (the folder of the study that names it), else as a path.

    Raises UserError if there is no such file, or if it is not a valid search space.
    """
    candidates = [SPACES_FOLDER / name, *([beside / name] if beside else []), Path(name)]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        packaged = ", ".join(sorted(p.name for p in SPACES_FOLDER.glob("*.yaml")))
        raise UserError(f"search space {name!r}: no such file; packaged spaces: {packaged}")
    try:
        return SearchSpace.model_validate(read_document(path, "search space"))
    except ValidationError as error:
        raise UserError(f"search space {path}: {explain(error, SearchSpace)}") from None
