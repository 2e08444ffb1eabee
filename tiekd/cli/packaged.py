"""What installed packages add to the command, found through entry points: commands, listings and run configs.

tiekd.commands    a verb of `tiekd`
tiekd.listings    a kind of `tiekd list`: () -> {name: description}
tiekd.runs        run configs by name: () -> {name: path}
tiekd.schemas     a document that `tiekd config schema` describes: a pydantic model
"""

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tiekd.errors import UserError, unknown


def plugins(group: str) -> Iterator[tuple[str, Any]]:
    """The names and objects of an entry-point group, in the order of their names."""
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        yield entry.name, entry.load()


def find_run_config(name: str) -> Path:
    """The file of a run config: a path, or the name of a packaged one. Raises UserError if there is neither."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file() or len(path.parts) > 1:
        return path
    if "=" in name:
        raise UserError(f"run config: got the setting {name}; name the config first, then --set {name}")
    packaged: dict[str, Path] = {}
    for _, files in plugins("tiekd.runs"):
        packaged |= files()
    if name not in packaged:
        raise UserError(unknown("run config", name, packaged) + "; or the path of a YAML file")
    return packaged[name]
