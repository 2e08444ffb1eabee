"""YAML documents as nested dicts: reading, settings by dotted path, and validation errors in one line.

A document is untrusted: its size, its depth and what its aliases expand to are limited.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tiekd.errors import UserError, os_error_reason, shorten, unknown

_NESTED = (dict, list)
MAX_BYTES = 2**20
MAX_DEPTH = 50  # of nested mappings and lists
MAX_VALUES = 200_000  # of a document whose aliases are expanded
REPLACED = {"loss.parts": ("name", "target"), "loss.name": ("parts",)}  # settings that another of their section replaces
TEACHER_SOURCES = ("maps", "run", "weights", "hf")  # settings of `teacher` of which a document states one
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C version if PyYAML was built with it


class _Document(_SafeLoader):
    """Safe YAML that refuses duplicate keys, of which PyYAML would silently keep the last, and numbers that it misreads."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if re.match(r"[-+]?0[0-9_]+$", node.value) or ":" in node.value:
            problem = f"{node.value!r} is a number of base 8 or 60 for some readers; write it without leading zeros or colons"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _Document.add_constructor(_tag, _Document.construct_number)


def parse_yaml(content: str | bytes) -> Any:
    """Parse YAML into plain values. Raises ValueError with one line for what is invalid or exceeds the limits."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"is longer than {MAX_BYTES // 2**20} MiB, more than a document of settings can be")
    try:
        value = yaml.load(content, _Document)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that cannot be
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels") from None
    if isinstance(value, _NESTED):
        _check_extent(value)
    return value


def _check_extent(value: Any) -> None:
    """Raise ValueError if a value is nested too deeply, as one that contains itself is, or too large with its aliases."""
    level, n_values = [value], 0
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        n_values += len(level)
        if n_values > MAX_VALUES:
            raise ValueError(f"has more than {MAX_VALUES} values with its aliases expanded")
        level = [inner for inner in level if isinstance(inner, _NESTED)]
        if not level:
            return
    raise ValueError(f"is nested deeper than {MAX_DEPTH} levels, or contains itself")


def parse_mapping(content: str | bytes) -> dict[str, Any]:
    """Parse YAML that is a mapping of settings. Raises ValueError for anything else."""
    document = parse_yaml(content)
    if not isinstance(document, dict):
        raise ValueError(f"expected a mapping of settings, got {type(document).__name__}")
    return document


def read_document(path: str | Path, what: str = "config") -> dict:
    """Read a YAML mapping. Raises UserError, in one line, for anything else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} {path}: no such file")
    try:
        with path.open("rb") as file:
            return parse_mapping(file.read(MAX_BYTES + 1))
    except ValueError as error:
        raise UserError(f"{what} {path}: {error}") from None
    except OSError as error:
        raise UserError(f"{what} {path}: cannot be read: {os_error_reason(error)}") from None


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
            values[path.strip()] = parse_yaml(value)
        except ValueError as error:
            reason = str(error).partition(":")[0] if str(error).startswith("not valid YAML") else str(error)
            raise UserError(f"--set {shorten(text)!r}: the value is {reason}") from None
    return values


def with_values(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict:
    """A copy of a document with settings, given by dotted path, replaced.

    A source of the teacher replaces the others, parts of the loss its name, and a name its parts.
    """
    changed = copied(dict(document))
    if isinstance(changed.get("teacher"), dict) and any(f"teacher.{source}" in values for source in TEACHER_SOURCES):
        changed["teacher"] = {key: value for key, value in changed["teacher"].items() if key not in TEACHER_SOURCES}
    for setting, replaced in REPLACED.items():
        section = setting.partition(".")[0]
        if values.get(setting) is not None and isinstance(changed.get(section), dict):
            changed[section] = {key: value for key, value in changed[section].items() if key not in replaced}
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
    if item["type"] == "plain_value":
        path = ".".join(filter(None, (path, str(item["ctx"]["field"]))))
        return f"{path}: {item['ctx']['problem']}, got {shorten(repr(item['ctx']['input']))}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    return f"{path}: {message[0].lower()}{message[1:]}, got {shorten(repr(item['input']))}"


def _fields_at(model: type[BaseModel], path: tuple) -> list[str]:
    """The settings of the section at `path`."""
    for name in path:
        field = model.model_fields.get(name) if isinstance(name, str) else None
        if field is None:
            continue  # the name of a section in a mapping of them
        nested = section_of(field.annotation)
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section among the types of a setting; None for a single setting."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((s for s in map(section_of, getattr(annotation, "__args__", ())) if s), None)
