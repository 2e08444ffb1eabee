"""The type of a single setting, without the settings that it must agree with."""

from functools import cache
from typing import Any, cast

from pydantic import BaseModel, ValidationError, create_model

from tiekd.config.documents import explain, section_of
from tiekd.config.run_config import RunConfig
from tiekd.config.sections import Section
from tiekd.errors import UserError

_TEACHER_RUN = "teacher.run."  # a run config as a mapping


def plain_setting(path: str, value: Any) -> Any:
    """Return a value as a config's document has it, such as 0.001 for the text 1e-3, which YAML does not read as a number.

    Raises UserError, without the path, for a value that the setting does not take. A path without a type takes any value.
    """
    model = _model_of(path.removeprefix(_TEACHER_RUN))
    if model is None:
        return value
    leaf = path.rpartition(".")[2]
    try:
        return model.model_validate({leaf: value}).model_dump(mode="json")[leaf]
    except ValidationError as error:
        raise UserError("; ".join(part.removeprefix(f"{leaf}: ") for part in explain(error, model).split("; "))) from None


@cache
def _model_of(path: str) -> type[BaseModel] | None:
    """A section with that setting alone; None if it is not a typed setting."""
    section: type[BaseModel] | None = RunConfig
    *parents, leaf = path.split(".")
    for name in parents:
        field = section.model_fields.get(name) if section else None
        section = section_of(field.annotation) if field else None
    field = section.model_fields.get(leaf) if section else None
    return cast(Any, create_model)("Setting", __base__=Section, **{leaf: (field.annotation, field)}) if field else None
