"""SHA-256 digests of input files, kept in the user's cache folder, so that a file is read once as long as it does not change.

CACHE/tiekd/digests/<hash of a folder's path>.json    name of a file below the folder: its state and its digest

CACHE is XDG_CACHE_HOME, or else ~/.cache. A cache that is damaged, missing or not writable costs time, never a wrong digest.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tiekd.data.image_io import MissingFileError
from tiekd.data.progress import track
from tiekd.errors import UserError, os_error_reason
from tiekd.store.files import write_atomically

State = tuple[int, int, int, int]  # size, times of modification and of change in ns, inode
Known = dict[str, tuple[State, str]]  # state and digest by the name of a file

THREADS = 4  # reading and hashing need no interpreter lock
SAVE_EVERY = 4 * 10**9  # bytes; an interrupted launch loses at most so much reading
ANNOUNCE = 10**9  # bytes; reading more takes seconds
SETTLING_TIME = 2 * 10**9  # ns; a file that changed later may change again without a change of its times

LOG = logging.getLogger(__name__)
_known: dict[str, Known] = {}  # by folder, for this process; so a process without a cache reads a file once, too


def file_sha256(path: str | Path) -> bytes:
    """Hash the content of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def file_digests(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the SHA-256 of files below a folder, 64 hex digits each.

    Reads only files that are new, or whose size, times or inode have changed. Raises UserError if a file cannot be read.
    """
    root = os.path.realpath(folder)
    cache = _cache_file(root)
    known = _known.get(root) or _known.setdefault(root, _read_cache(cache))
    states = {name: _state(os.path.join(root, name)) for name in names}
    digests = {name: known[name][1] for name, state in states.items() if name in known and known[name][0] == state}
    digests |= _read_files(root, {name: state for name, state in states.items() if name not in digests}, known, cache)
    return [digests[name] for name in names]


def _read_files(root: str, states: Mapping[str, State], known: Known, cache: Path | None) -> dict[str, str]:
    """Hash files, and add those that have not just changed to `known` and to the cache. Shows what takes long."""
    if not states:
        return {}
    started, digests, unsaved = time.time_ns(), {}, 0
    n_bytes = sum(size for size, *_ in states.values())
    if n_bytes > ANNOUNCE:
        LOG.warning("%s: reading %d files, %.1f GB, to know their content; digests are kept", root, len(states), n_bytes / 1e9)
    new: Known = {}
    with ThreadPoolExecutor(THREADS) as threads:
        found = threads.map(_digest, (os.path.join(root, name) for name in states))
        shown = track(found, "reading files", len(states)) if n_bytes > ANNOUNCE else found
        for (name, state), digest in zip(states.items(), shown, strict=True):
            digests[name], unsaved = digest, unsaved + state[0]
            if state[2] < started - SETTLING_TIME:
                new[name] = state, digest
            if unsaved > SAVE_EVERY:
                _add_to_cache(cache, new)
                unsaved = 0
    known |= new
    problem = _add_to_cache(cache, new)
    if problem and n_bytes > ANNOUNCE:
        LOG.warning("digests cannot be kept, so every launch reads all files: %s; set XDG_CACHE_HOME", problem)
    return digests


def _state(path: str) -> State:
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _digest(path: str) -> str:
    try:
        return file_sha256(path).hex()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"{path}: no such file")
    return UserError(f"{path}: cannot be read: {os_error_reason(error)}")


# -- cache -----------------------------------------------------------------------------------------------------------------


def cache_folder(*names: str) -> Path | None:
    """Return a folder in tiekd's part of the user's cache; None if the user has no folder for caches."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = given if os.path.isabs(given) else os.path.expanduser("~/.cache")
    return Path(base, "tiekd", *names) if os.path.isabs(base) else None


def _cache_file(root: str) -> Path | None:
    """The file with the digests of a folder; None if the user has no folder for caches."""
    folder = cache_folder("digests")
    return folder and folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}.json"


def _read_cache(cache: Path | None) -> Known:
    """Read the digests of a folder; empty if they are missing or damaged."""
    if cache is None:
        return {}
    try:
        entries = json.loads(cache.read_bytes())
        return {str(name): (_as_state(state), _as_digest(digest)) for name, (state, digest) in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _as_state(values: list[int]) -> State:
    size, modified, changed, inode = values
    return size, modified, changed, inode


def _as_digest(text: str) -> str:
    if len(bytes.fromhex(text)) != hashlib.sha256().digest_size:
        raise ValueError("not a digest")
    return text


def _add_to_cache(cache: Path | None, entries: Known) -> str:
    """Add digests to a folder's; returns what prevents it. Of two processes that do so at once, one may read files again."""
    if cache is None:
        return "the user has no folder for caches"
    try:
        if entries:
            write_atomically(cache, json.dumps(_read_cache(cache) | entries, separators=(",", ":")).encode())
    except OSError as error:
        return f"{cache}: {os_error_reason(error)}"
    return ""
