"""What a config says of its run: columns of runs.parquet, and what tells its cell from others."""

import json
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from reports.loading.schema import SETTING_TYPES, TABLE_COLUMNS
from tiekd.config import RunConfig, TeacherConfig, build
from tiekd.config.documents import flatten
from tiekd.config.labels import fidelity, labels
from tiekd.deploy.profile_records import network_id
from tiekd.errors import UserError

_MANY = (list, tuple, dict)
_SEED = TypeAdapter(Annotated[int, RunConfig.model_fields["seed"]])


@dataclass(frozen=True)
class ConfigDescription:
    """`columns`: every setting by its dotted path, the labels, the network. `settings`: what makes the cell, whatever the seed.

    These are the settings that the run reads, and the paths of its inputs: they stand for contents that only a digest knows.
    """

    columns: dict[str, Any]
    settings: dict[str, Any]

    def factors(self, levels: dict) -> dict[str, Any]:
        """A study's factors by their columns' names. Of one that is a setting the run's value: none where it is not read."""
        values = {name: self.settings.get(name) if name in SETTING_TYPES else level for name, level in levels.items()}
        return {f"factor.{name}" if name in TABLE_COLUMNS else name: value for name, value in _plain(values).items()}


class ConfigDescriber:
    """Describes configs; those that differ in their seed only are built once, since thousands of runs share few cells."""

    def __init__(self) -> None:
        self._known: dict[str, ConfigDescription] = {}

    def of(self, document: Any, source: str) -> ConfigDescription | UserError:
        """The description of a config document, or what is wrong with it. `source` is where it stands."""
        try:
            seed = _SEED.validate_python(document["seed"])
            key = json.dumps({**document, "seed": None})
        except (ValidationError, LookupError, TypeError):  # the seed is left out, or something is wrong
            return _describe(document, source)
        if key not in self._known:
            described = _describe(document, source)
            if isinstance(described, UserError):
                return described
            self._known[key] = described
        known = self._known[key]
        return replace(known, columns=known.columns | {"seed": seed})


def _describe(document: Any, source: str) -> ConfigDescription | UserError:
    try:
        config = build(document, source)
    except UserError as error:
        return error
    document = config.document()
    document["teacher"] = document["teacher"] or dict.fromkeys(TeacherConfig.model_fields)
    columns, settings = _plain(flatten(document)), _plain(flatten(config.identity()))
    del settings["seed"]
    inputs = ["data.root", "data.train_split", "data.test_split", *(["teacher.maps"] if config.reads_teacher else [])]
    settings |= {path: columns[path] for path in inputs} | {"fidelity": fidelity(config)}
    return ConfigDescription(columns | labels(config) | {"network": network_id(config)}, settings)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Lists as text: a column of a data frame holds single values."""
    return {name: json.dumps(value) if isinstance(value, _MANY) else value for name, value in values.items()}
