"""The folder of a viewer: its layout, and which files exist.

DIR/index.html, viewer.css, *.js                     the page
DIR/data/v1/index.js                                 data sets, color tables, constants of the file formats
DIR/data/v1/<data set>/index.js                      frames, results and their metrics
DIR/data/v1/<data set>/image/<frame>.js              RGB image, a WebP file
DIR/data/v1/<data set>/<result>/<frame>.js           depth map; <result> is truth, teacher-<digest> or a run id
DIR/data/v1/<data set>/<result>/<frame>.dpm.js       distributions, also for target-<digest>, the targets of a teacher

All names are digests, run ids and numbers: text from users never becomes part of a path.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports.viewer.encoding import data_script
from tiekd.store.files import json_text, write_atomically

SITE_VERSION = 1  # increment if files of an earlier version would be misread: each version has its own folder
PAGE_FOLDER = Path(__file__).parent / "page"
MAP_SUFFIX, DPM_SUFFIX = ".js", ".dpm.js"  # MAP_SUFFIX also of images


class Site:
    """The folder of one viewer."""

    def __init__(self, folder: Path):
        self.folder = folder

    def missing(self, dataset: str, result: str, frames: Iterable[int], suffix: str) -> set[int]:
        """Return the frames that have no file yet."""
        return {frame for frame in frames if not self._path(dataset, result, frame, suffix).is_file()}

    def write(self, dataset: str, result: str, frame: int, suffix: str, content: bytes) -> None:
        """Write the file of a frame."""
        write_atomically(self._path(dataset, result, frame, suffix), content)

    def write_script(self, dataset: str, result: str, frame: int, suffix: str, content: bytes, **header: Any) -> None:
        """Write encoded numbers as a script, under the name by which the page requests them."""
        name = f"{dataset}/{result}/{_stem(frame)}{suffix.removesuffix('.js')}"
        self.write(dataset, result, frame, suffix, data_script(name, content, **header))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a file that the page does not use; {} if there is none, or a damaged one, which is then written again."""
        try:
            found = json.loads((self._data / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a file that the page does not use."""
        write_atomically(self._data / name, json_text(value).encode())

    def write_index(self, name: str, content: dict[str, Any]) -> None:
        """Write the index of a data set, or of the whole site if `name` is empty."""
        arguments = json_text(name), json_text(content, separators=(",", ":"))
        write_atomically(self._data / name / "index.js", f"arrivedIndex({', '.join(arguments)});\n".encode())

    def run_ids(self) -> frozenset[str] | None:
        """Return the ids of the runs in the index; None without an index, or with a damaged one."""
        try:
            text = (self._data / "index.js").read_text()
            _, content = json.loads(f"[{text.strip().removeprefix('arrivedIndex(').removesuffix(');')}]")
            return frozenset(run_id for dataset in content["datasets"] for run_id in dataset["runs"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def write_page(self) -> None:
        """Copy the page: CSS and scripts, and then index.html, which needs them."""
        for file in sorted(PAGE_FOLDER.iterdir(), key=lambda file: file.name == "index.html"):
            write_atomically(self.folder / file.name, file.read_bytes())

    @property
    def _data(self) -> Path:
        return self.folder / "data" / f"v{SITE_VERSION}"

    def _path(self, dataset: str, result: str, frame: int, suffix: str) -> Path:
        return self._data / dataset / result / f"{_stem(frame)}{suffix}"


def _stem(frame: int) -> str:
    return f"{frame:05d}"
