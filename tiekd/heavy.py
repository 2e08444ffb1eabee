"""Importing what is large in less time."""

import atexit
import contextlib
import gc
import importlib
import sys
from collections.abc import Iterator


def import_networks() -> None:
    """Import timm, and with it PyTorch, ahead of the modules that build on them; once in a process.

    Their two thousand modules make half a million objects, of which none is garbage. To look for it, meanwhile and ever after,
    takes a fifth of the time: so Python does not look while they come, and leaves them out later.
    """
    if "timm" in sys.modules:
        return
    gc.disable()
    try:
        importlib.import_module("timm")
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # a library of PyTorch's complains of objects that outlive the interpreter


@contextlib.contextmanager
def without(name: str) -> Iterator[None]:
    """Whoever imports a module that is not there yet finds it missing: for packages that do as well without it."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
