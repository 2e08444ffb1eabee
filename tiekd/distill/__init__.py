"""Distillation: from a config to a trained and evaluated student, in this process or as one of several.

Imports PyTorch only once a name is used. The package can be called: `tiekd.distill(config, runtime)` is
`tiekd.distill.distill(config, runtime)`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiekd.distill.loop import DistillResult, distill

__all__ = ["DistillResult", "distill"]


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> "DistillResult":
        return import_module("tiekd.distill.loop").distill(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in __all__:
            return getattr(import_module("tiekd.distill.loop"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _CallablePackage
