"""A report's folder: files that appear whole, and those of an earlier report that go when it is made again."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiekd.errors import UserError

MANIFEST = ".report.json"  # what reports wrote into the folder: {kind: [file, ...]}


@contextmanager
def staged_output(out: Path, kind: str, files: list[Path]) -> Iterator[Path]:
    """A folder to write into; its files are then moved to `out`, file by file, and appended to `files`.

    A reader of `out` never meets half a file. Files that an earlier filling of the same kind left there and this one did not
    make again are deleted, those of others never. What fails leaves `out` as it was. Raises UserError where `out` cannot be
    written.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None
    try:
        yield partial
        files += _publish(partial, out, kind)
    except BaseException:
        shutil.rmtree(partial)
        for folder in made:
            folder.rmdir()
        raise
    shutil.rmtree(partial)


def _publish(partial: Path, out: Path, kind: str) -> list[Path]:
    names = [file.relative_to(partial) for file in sorted(partial.rglob("*")) if file.is_file()]
    manifest = _read_manifest(out)
    for old in set(manifest.get(kind, ())) - set(map(str, names)):
        if (out / old).resolve().is_relative_to(out.resolve()):
            (out / old).unlink(missing_ok=True)
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(out / name)
    new = partial / MANIFEST
    new.write_text(json.dumps(manifest | {kind: list(map(str, names))}, indent=1))
    new.replace(out / MANIFEST)
    return [out / name for name in names]


def _read_manifest(out: Path) -> dict[str, list[str]]:
    """What earlier reports wrote; nothing where that cannot be read: a file too many is better than one lost."""
    try:
        found = json.loads((out / MANIFEST).read_text())
        return {kind: [str(name) for name in names] for kind, names in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
