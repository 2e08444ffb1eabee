"""TIE-KD: teacher-independent, explainable knowledge distillation for monocular depth estimation.

    import tiekd

    config = tiekd.load_config("run.yaml", {"optim.epochs": 2})
    student = tiekd.load_student("store/runs/1f0e9a4c7b2d3856")
    depth = student.predict("street.jpg").depth  # [H, W] m

Importing the package imports nothing else; each name is loaded when it is first used.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiekd.bins import DepthBins, target_dpm
    from tiekd.config import RunConfig, load_config
    from tiekd.deploy.hub import load_student
    from tiekd.metrics import depth_metrics

__all__ = [
    "DepthBins",
    "RunConfig",
    "__version__",
    "depth_metrics",
    "distill",
    "load_config",
    "load_student",
    "target_dpm",
]

_MODULES = {
    "DepthBins": "tiekd.bins",
    "RunConfig": "tiekd.config",
    "depth_metrics": "tiekd.metrics",
    "load_config": "tiekd.config",
    "load_student": "tiekd.deploy.hub",
    "target_dpm": "tiekd.bins",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("tiekd")
    if name == "distill":
        return import_module("tiekd.distill")  # the package itself can be called
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
