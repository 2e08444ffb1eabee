"""The columns of runs.parquet that follow from a run's config, and the settings that identify its cell."""

import json
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from reports.loading.schema import LABELLED, SETTING_TYPES, TABLE_COLUMNS
from tiekd.config import FolderConfig, RunConfig, TeacherConfig, build
from tiekd.config.documents import flatten
from tiekd.config.labels import fidelity, labels
from tiekd.config.sections import TEACHER_SOURCES
from tiekd.deploy.profile_records import network_id
from tiekd.errors import UserError

_SEED = TypeAdapter(Annotated[int, RunConfig.model_fields["seed"]])


@dataclass(frozen=True)
class ConfigDescription:
    """What a config contributes to tables.

    columns   every setting by its dotted path, the labels, and the network
    settings  what runs of one cell share, by dotted path: the settings that the run reads except its seed, and the paths of its
              inputs in place of their digests
    """

    columns: dict[str, Any]
    settings: dict[str, Any]

    def factors(self, levels: dict) -> dict[str, Any]:
        """The factors of a study by the names of their columns. A factor that is a setting has the run's value: None if the
        run does not read it.
        """
        values = {name: self.settings.get(name) if name in SETTING_TYPES else level for name, level in levels.items()}
        return {f"factor.{name}" if name in TABLE_COLUMNS else name: value for name, value in _scalars(values).items()}


class ConfigDescriber:
    """Describes configs. Configs that differ only in their seed are validated once: thousands of runs share few cells."""

    def __init__(self) -> None:
        self._known: dict[str, ConfigDescription] = {}

    def describe(self, document: Any, source: str) -> ConfigDescription | UserError:
        """Describe a config document; if it is invalid, return the error, which names its `source`."""
        try:
            seed = _SEED.validate_python(document["seed"])
            key = json.dumps({**document, "seed": None})
        except (ValidationError, LookupError, TypeError):  # without a seed, or invalid
            return _describe(document, source)
        if key not in self._known:
            description = _describe(document, source)
            if isinstance(description, UserError):
                return description
            self._known[key] = description
        known = self._known[key]
        return replace(known, columns=known.columns | {"seed": seed})


def _describe(document: Any, source: str) -> ConfigDescription | UserError:
    try:
        config = build(document, source)
    except UserError as error:
        return error
    document = config.document()
    document["data"]["folder"] = document["data"]["folder"] or dict.fromkeys(FolderConfig.model_fields)
    document["teacher"] = _as_columns(document["teacher"] or dict.fromkeys(TeacherConfig.model_fields))
    if document["loss"]["parts"]:
        document["loss"]["parts"] = json.dumps(document["loss"]["parts"], sort_keys=True)
    columns, settings = _scalars(flatten(document)), _scalars(flatten(config.identity()))
    columns |= {path: None for path, value in columns.items() if value == "auto" and SETTING_TYPES[path] != "string"}
    del settings["seed"]
    inputs = ["data.root", "data.train_split", "data.test_split"]
    inputs += [f"teacher.{source}" for source in TEACHER_SOURCES if config.reads_teacher and document["teacher"][source]]
    settings |= {path: columns[path] for path in inputs} | {"fidelity": fidelity(config)}
    settings |= {LABELLED: columns[LABELLED]} if columns[LABELLED] is not None else {}  # the identity has the digest instead
    settings |= {"loss.dpm": config.loss.dpm} if "dpm" in config.loss.reads else {}  # the identity leaves the default out
    return ConfigDescription(columns | labels(config) | {"network": network_id(config)}, settings)


def _as_columns(teacher: dict[str, Any]) -> dict[str, Any]:
    """A teacher whose run, if it has one, is one value: its columns are not those of the student's run."""
    return {**teacher, "run": teacher_key(teacher["run"]) if teacher["run"] else None}


def teacher_key(document: dict[str, Any]) -> str:
    """The value of the column `teacher.run`: the config of the run that trains a teacher, without where it is computed."""
    return json.dumps({name: section for name, section in document.items() if name != "execution"}, sort_keys=True)


def _scalars(values: dict[str, Any]) -> dict[str, Any]:
    """Values for columns of a data frame, with lists as JSON."""
    return {name: json.dumps(value) if isinstance(value, list | tuple | dict) else value for name, value in values.items()}
