"""The viewer's folder: what lies where, and what of it is there already.

DIR/index.html, viewer.css, *.js          the page
DIR/data/v1/index.js                         the data sets, colours, constants of the formats
DIR/data/v1/<data set>/index.js              its frames, results and their metrics
DIR/data/v1/<data set>/image/<frame>.webp    RGB
DIR/data/v1/<data set>/<result>/<frame>.js   a depth map; <result> is truth, teacher-<digest> or a run id
DIR/data/v1/<data set>/<result>/<frame>.dpm.js   its distributions; also of target-<digest>, a teacher's target

Names are digests, run ids and numbers: no text of a user's becomes a path.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reports.viewer.pack import script
from tiekd.store.files import write_atomically

FORMAT = 1  # raised when files of an earlier format would be misread: they lie elsewhere then
PAGE = Path(__file__).parent / "page"
IMAGE, MAP, DPM = ".webp", ".js", ".dpm.js"


class Site:
    """The folder of one viewer."""

    def __init__(self, folder: Path):
        self.folder = folder

    def has(self, dataset: str, result: str, frame: int, kind: str) -> bool:
        return self._path(dataset, result, frame, kind).is_file()

    def missing(self, dataset: str, result: str, frames: Iterable[int], kind: str) -> set[int]:
        """Those of the frames that have no file yet."""
        return {frame for frame in frames if not self.has(dataset, result, frame, kind)}

    def write(self, dataset: str, result: str, frame: int, kind: str, content: bytes) -> None:
        write_atomically(self._path(dataset, result, frame, kind), content)

    def write_script(self, dataset: str, result: str, frame: int, kind: str, content: bytes, **about: Any) -> None:
        """Packed numbers, under the name by which the page asks for them."""
        name = f"{dataset}/{result}/{_stem(frame)}{kind.removesuffix('.js')}"
        self.write(dataset, result, frame, kind, script(name, content, **about))

    def read_json(self, name: str) -> dict[str, Any]:
        """A file that the page does not read; {} where there is none."""
        path = self._data / name
        return json.loads(path.read_bytes()) if path.is_file() else {}

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        write_atomically(self._data / name, json.dumps(value).encode())

    def write_index(self, name: str, content: dict[str, Any]) -> None:
        """`name` is "" for the whole or a data set."""
        path = self._data / name / "index.js"
        words = json.dumps(name), json.dumps(content, separators=(",", ":"), allow_nan=False)
        write_atomically(path, f"arrivedIndex({', '.join(words)});\n".encode())

    def run_ids(self) -> frozenset[str] | None:
        """The runs that the whole index names; None where there is none."""
        path = self._data / "index.js"
        if not path.is_file():
            return None
        _, content = json.loads(f"[{path.read_text().strip().removeprefix('arrivedIndex(').removesuffix(');')}]")
        return frozenset(run_id for dataset in content["datasets"] for run_id in dataset["runs"])

    def write_page(self) -> None:
        for file in PAGE.iterdir():
            write_atomically(self.folder / file.name, file.read_bytes())

    @property
    def _data(self) -> Path:
        return self.folder / "data" / f"v{FORMAT}"

    def _path(self, dataset: str, result: str, frame: int, kind: str) -> Path:
        return self._data / dataset / result / f"{_stem(frame)}{kind}"


def _stem(frame: int) -> str:
    return f"{frame:05d}"
