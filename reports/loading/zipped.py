"""A run store in a zip file of `tiekd bundle`: unpacked for the time in which it is read.

    ro-crate-metadata.json  constraints.txt
    report/                 what `tiekd report STORE --study NAME` wrote
    store/                  a run store with the study, its runs and the costs of their networks
    teachers/               a run store with the runs that trained its teachers

The file may come from anybody: only the known files below store/ are unpacked, as regular files.
"""

import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiekd.errors import UserError, error_line
from tiekd.store.files import safe_name
from tiekd.store.run_store import RunStore
from tiekd.store.temporary import temporary_folder

STORE = "store"
STUDY_FILES = ("study.json", "findings.json")
RUN_FILES = (
    *("config.yaml", "status.json", "summary.json", "provenance.json"),
    *("epochs.parquet", "images.parquet", "protocols.parquet"),
)
_UNPACKED = re.compile(
    rf"{STORE}/(studies/[^/]+/({'|'.join(map(re.escape, STUDY_FILES))})"
    rf"|runs/[^/]+/({'|'.join(map(re.escape, RUN_FILES))})|efficiency/[^/]+/[^/]+\.json)"
)
_MAX_RATIO = 100  # unpacked to packed; Parquet hardly shrinks, the documents of thousands of runs shrink to a twentieth
_ALWAYS_ALLOWED = 2**26  # unpacked bytes


@contextmanager
def opened_store(place: str) -> Iterator[RunStore]:
    """The run store at a folder or URI, or the one in a zip file, which is unpacked until the end of the block.

    Raises UserError if the place cannot be a store, or for a file that is not a zip file of `tiekd bundle`.
    """
    file = os.path.expanduser(place)
    if not os.path.isfile(file):  # also False for a URI
        yield RunStore(place)
        return
    with temporary_folder() as folder:
        unpacked = folder / safe_name(Path(file).name)  # messages name this folder
        _unpack(file, place, unpacked)
        yield RunStore(unpacked)


def _unpack(file: str, place: str, folder: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            for member in _checked(archive.infolist(), os.path.getsize(file), place, folder.parent):
                target = folder / member.filename.removeprefix(f"{STORE}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink)  # at most as many bytes as the member states
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, ValueError) as error:
        raise UserError(
            f"store {place}: expected a folder, a URI or a zip file of `tiekd bundle`: {error_line(error)}"
        ) from None


def _checked(members: list[zipfile.ZipInfo], packed_size: int, place: str, temporary: Path) -> list[zipfile.ZipInfo]:
    """The members to unpack. Raises UserError if any name leads out of a folder, or if they would fill the disk."""
    names = [member.filename for member in members]
    for name in names:
        parts = name.removesuffix("/").split("/")
        if "\\" in name or not {"", ".", ".."}.isdisjoint(parts):
            raise UserError(f"store {place}: the zip file has the name {name!r}, expected a path below one folder")
    if len(set(names)) < len(names):
        raise UserError(f"store {place}: the zip file has two files of one name")
    found = [member for member in members if _UNPACKED.fullmatch(member.filename)]
    if not any(member.filename.endswith("/study.json") for member in found):
        raise UserError(
            f"store {place}: the zip file has no {STORE}/studies/NAME/study.json, so `tiekd bundle` did not write it"
        )
    if other := next(
        (member for member in found if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)), None
    ):
        raise UserError(f"store {place}: {other.filename} is compressed in another way than `tiekd bundle` does")
    size = sum(member.file_size for member in found)
    if size > max(_MAX_RATIO * packed_size, _ALWAYS_ALLOWED):
        raise UserError(f"store {place}: {packed_size} bytes would unpack to {size}, more than {_MAX_RATIO} times as many")
    if size > (free := shutil.disk_usage(temporary).free):
        raise UserError(f"store {place}: needs {size} bytes in {temporary.parent}, where {free} are free; set TMPDIR")
    return found
