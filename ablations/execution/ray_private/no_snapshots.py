"""Ray Tune without its snapshots of a sweep, which nothing would restore: the run store says what is done.

A snapshot holds 23 kB of each trial, is made every 10 seconds and at the end, and cannot be turned off.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ray.tune.execution.tune_controller import TuneController


@contextlib.contextmanager
def no_snapshots(folder: Path) -> Iterator[None]:
    """Let the sweep that runs in the block keep no snapshot. folder: the experiment's, which is made."""
    folder.mkdir()
    # Tune looks for one before it returns the trials, and reads it if there are none.
    (folder / TuneController.CKPT_FILE_TMPL.format("none")).write_text('{"trial_data": []}')
    before = TuneController.checkpoint
    TuneController.checkpoint = lambda self, force=False, wait=False: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        TuneController.checkpoint = before  # type: ignore[method-assign]
