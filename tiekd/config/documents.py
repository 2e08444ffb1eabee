"""YAML documents as nested dicts: reading, settings by dotted path, and validation errors in one line."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tiekd.errors import UserError, unknown

_NESTED = (dict, list)


class _Document(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, of which PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


def read_document(path: str | Path, what: str = "config") -> dict:
    """Read a YAML mapping. Raises UserError, in one line, for anything else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} {path}: no such file")
    try:
        document = yaml.load(path.read_text(), _Document)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise UserError(f"{what} {path}: expected a mapping of settings, got {type(document).__name__}")
    return document


def merged(document: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a document over defaults, section by section. Sections that only one of them has are shared, not copied."""
    result = dict(defaults)
    for key, value in document.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(value, result[key]) if both else value
    return result


def parse_overrides(overrides: Iterable[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Parse 'dotted.path=value' strings, whose values are YAML."""
    if isinstance(overrides, Mapping):
        return dict(overrides)
    values = {}
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise UserError(f"--set {text!r}: expected dotted.path=value, e.g. loss.sigma=0.8")
        try:
            values[path.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {text!r}: the value is not valid YAML") from None
    return values


def with_values(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict:
    """A copy of a document with settings, given by dotted path, replaced."""
    changed = copied(dict(document))
    for path, value in values.items():
        *parents, leaf = path.split(".")
        section = changed
        for name in parents:
            if section.get(name) is None:
                section[name] = {}
            section = section[name]
            if not isinstance(section, dict):
                raise UserError(f"{path}: {name!r} is a single setting, not a section")
        section[leaf] = copied(value)
    return changed


def copied(value: Any) -> Any:
    """A deep copy of plain values, five times as fast as `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: copied(inner) if isinstance(inner, _NESTED) else inner for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """A pydantic error in one line: what was wrong, what was received, what would be valid."""
    return "; ".join(_explain_one(item, model) for item in error.errors())


def _explain_one(item: Any, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return unknown(f"{path}: no such setting", item["loc"][-1], _fields_at(model, item["loc"][:-1]))
    if item["type"] == "missing":
        return f"{path} is needed"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    return f"{path}: {message[0].lower()}{message[1:]}, got {item['input']!r}"


def _fields_at(model: type[BaseModel], path: tuple) -> list[str]:
    """The settings of the section at `path`."""
    for name in path:
        field = model.model_fields.get(name) if isinstance(name, str) else None
        nested = _section_of(field.annotation) if field else None
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((s for s in map(_section_of, getattr(annotation, "__args__", ())) if s), None)
