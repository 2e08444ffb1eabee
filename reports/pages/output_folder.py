"""Write a report's folder: each file appears whole, and stale files of an earlier report are removed."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiekd.errors import UserError
from tiekd.store.files import json_text

MANIFEST = ".report.json"  # the files that reports wrote: {kind: [file, ...]}


@contextmanager
def staged_output(out: Path, kind: str, files: list[Path]) -> Iterator[Path]:
    """Yield a temporary folder to write into; then move its files to `out`, one by one, and append them to `files`.

    Each file in `out` is whole. Files that an earlier report of the same kind wrote, and that this one did not write again, are
    deleted; other files never are. If the block fails, `out` stays as it was. Raises UserError if `out` cannot be written.
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
    new.write_text(json_text(manifest | {kind: list(map(str, names))}, indent=1))
    new.replace(out / MANIFEST)
    return [out / name for name in names]


def _read_manifest(out: Path) -> dict[str, list[str]]:
    """The files of earlier reports; empty if that cannot be read, since a stale file is better than a deleted one."""
    try:
        found = json.loads((out / MANIFEST).read_text())
        return {kind: [str(name) for name in names] for kind, names in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
