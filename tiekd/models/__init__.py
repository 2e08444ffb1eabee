"""Students: an encoder, a decoder and a head.

To add one: name its encoder and widths in `tiekd.config.presets.STUDENTS`; a new architecture adds its builder here.
"""

from collections.abc import Callable

from tiekd.config import RunConfig
from tiekd.config.presets import STUDENTS as PRESETS
from tiekd.models.student import DepthStudent, DPMPrediction, Prediction, build_depth_student

STUDENTS: dict[str, Callable[[RunConfig], DepthStudent]] = dict.fromkeys(PRESETS, build_depth_student)


def build_student(config: RunConfig) -> DepthStudent:
    """The student of a run, on the CPU, initialised from PyTorch's global generator."""
    return STUDENTS[config.student.name](config)


__all__ = ["STUDENTS", "DPMPrediction", "DepthStudent", "Prediction", "build_student"]
