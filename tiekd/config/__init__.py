"""One run's settings as a typed document, what they default to, and what makes two runs the same. Imports no PyTorch."""

from tiekd.config.loss_section import LossConfig
from tiekd.config.run_config import RunConfig, build, config_of_frames, diff, load_config, override, with_complete_teacher
from tiekd.config.sections import (
    AugmentConfig,
    BinsConfig,
    DataConfig,
    EvaluationConfig,
    ExecutionConfig,
    FolderConfig,
    Kernel,
    OptimConfig,
    Section,
    Size,
    StudentConfig,
    TeacherConfig,
)

__all__ = [
    "AugmentConfig",
    "BinsConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExecutionConfig",
    "FolderConfig",
    "Kernel",
    "LossConfig",
    "OptimConfig",
    "RunConfig",
    "Section",
    "Size",
    "StudentConfig",
    "TeacherConfig",
    "build",
    "config_of_frames",
    "diff",
    "load_config",
    "override",
    "with_complete_teacher",
]
