"""Where Ray Tune's messages go."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from tiekd.errors import StoreError
from tiekd.store.run_store import RunStore
from tiekd.store.temporary import temporary_folder

LOG = "ray-tune.log"
LOGGERS = ("ray.tune", "ray.train")  # Tune accesses its storage through code of Train


@contextlib.contextmanager
def tune_log(name: str, store: RunStore) -> Iterator[None]:
    """Redirect Ray Tune's messages to `studies/<name>/ray-tune.log`: useful for debugging, but noise on the screen.

    The file is outside the store until the block ends, so that logging works on a full disk and with an object store.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    with temporary_folder() as folder:
        file = folder / LOG
        handler = logging.FileHandler(file)
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        try:
            yield
        finally:
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
            handler.close()
            if not isinstance(sys.exception(), StoreError):
                with contextlib.suppress(StoreError):
                    store.write_bytes(f"studies/{name}/{LOG}", file.read_bytes())
