"""What installed packages add to the command, found through entry points: commands, listings and run configs.

tiekd.commands    a verb of `tiekd`
tiekd.listings    a kind of `tiekd list`: () -> {name: description}
tiekd.runs        run configs by name: () -> {name: path}
tiekd.schemas     a document that `tiekd config schema` describes: a pydantic model
tiekd.pools       processes that share the work of a command: takes the arguments of `open_pool`, and gives its pool
"""

import contextlib
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiekd.errors import UserError, unknown

if TYPE_CHECKING:
    from tiekd.config import ExecutionConfig, RunConfig
    from tiekd.data.progress import Pool


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


@contextlib.contextmanager
def open_pool(
    address: str | None,
    execution: "ExecutionConfig",
    out: Path,
    gpu: bool,
    configs: Sequence["RunConfig"] = (),
    files: Sequence[Path] = (),
) -> Iterator["Pool"]:
    """Open the pool of a command with `--address`; without one, it is this process.

    execution: what one process reserves. out: the folder that all processes write to. gpu: whether they compute on GPUs, if
    there are any. configs: of the data that they read. files: others that they read. Raises UserError if the cluster cannot be
    reached, or if its nodes do not have these inputs.
    """
    from tiekd.data.progress import in_this_process

    if address is None:
        yield in_this_process
        return
    for _, ray_pool in plugins("tiekd.pools"):
        with ray_pool(address, execution, out, gpu, configs, files) as pool:
            yield pool
        return
    raise UserError(f"--address {address}: no installed package provides a pool of processes")
