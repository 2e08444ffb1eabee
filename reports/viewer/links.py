"""Where a page finds the pictures of runs: addresses in a viewer that lies elsewhere."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from reports.viewer.site import Site
from tiekd.errors import UserError


@dataclass(frozen=True)
class Viewer:
    """A viewer as seen from a page: its address, relative to that page, and the runs that it shows."""

    address: str
    run_ids: frozenset[str]

    def address_of(self, run_id: str) -> str:
        return f"{self.address}#focus={run_id}"


def viewer_of(folder: Path, beside: Path) -> Viewer:
    """The viewer in a folder, for pages in the folder `beside`. Raises UserError where there is none."""
    run_ids = Site(folder).run_ids()
    if run_ids is None:
        raise UserError(f"--viewer {folder}: holds no viewer; `tiekd view STORE --out {folder}` makes one")
    path = os.path.relpath(folder.absolute() / "index.html", beside.absolute())
    return Viewer(quote(Path(path).as_posix()), run_ids)
