"""Teachers: to a training a folder of depth maps (maps.py), made by one of the networks here or by any other program.

To add an architecture: write its module, name it in TEACHERS, and its recipe in `tiekd.presets.TEACHERS`. The modules load when
a network is built: to read maps takes no timm.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from tiekd import presets
from tiekd.config import RunConfig
from tiekd.teachers.maps import MapWriter, TeacherMaps

if TYPE_CHECKING:
    from torch import nn

Builder = Callable[[RunConfig], "nn.Module"]


def _builder(name: str) -> Builder:
    return lambda config: import_module(f"tiekd.teachers.{name}").build(config)


TEACHERS: dict[str, Builder] = {name: _builder(name) for name in presets.TEACHERS}

__all__ = ["TEACHERS", "MapWriter", "TeacherMaps"]
