"""Links from a report to the pictures of its runs in a viewer."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from reports.viewer.site import Site
from tiekd.errors import UserError


@dataclass(frozen=True)
class Viewer:
    """A viewer: its address relative to a report, and the runs it shows."""

    address: str
    run_ids: frozenset[str]

    def address_of(self, run_id: str) -> str:
        """Return the address of a run's pictures."""
        return f"{self.address}#focus={run_id}"


def find_viewer(folder: Path, report: Path) -> Viewer:
    """Find the viewer in `folder`, for pages in the folder `report`. Raises UserError if there is none."""
    run_ids = Site(folder).run_ids()
    if run_ids is None:
        raise UserError(
            f"--viewer {folder}: no viewer in this folder; create one with `tiekd view STORE --out {shlex.quote(str(folder))}`"
        )
    path = os.path.relpath(folder.absolute() / "index.html", report.absolute())
    return Viewer(quote(Path(path).as_posix()), run_ids)
