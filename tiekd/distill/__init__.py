"""Distillation: from a config to a trained and evaluated student, in this process or as one of several.

Imports PyTorch only once a name is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiekd.distill.loop import Distilled, distill

__all__ = ["Distilled", "distill"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("tiekd.distill.loop"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
