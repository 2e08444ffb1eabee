"""One entry per loss, DPM, data set, student, teacher and evaluation protocol: what the rest of the code knows of them."""

from collections import ChainMap
from collections.abc import Mapping

from tiekd.config.specs.datasets import DATASETS
from tiekd.config.specs.dpms import DEFAULT_DPM, DPMS
from tiekd.config.specs.kinds import (
    DatasetSpec,
    DPMSpec,
    Head,
    License,
    LossSpec,
    NetworkSpec,
    ProtocolSpec,
    ReleasedCheckpoint,
    ReleasedMapNames,
    StudentSpec,
    TeacherSpec,
)
from tiekd.config.specs.losses import LOSSES
from tiekd.config.specs.protocols import ALIGNMENTS, PROTOCOLS, protocol_of
from tiekd.config.specs.students import STUDENTS
from tiekd.config.specs.teachers import TEACHERS

NETWORKS: Mapping[str, NetworkSpec] = ChainMap(STUDENTS, TEACHERS)  # type: ignore[arg-type] # read only, so covariant

__all__ = [
    "ALIGNMENTS",
    "DATASETS",
    "DEFAULT_DPM",
    "DPMS",
    "LOSSES",
    "NETWORKS",
    "PROTOCOLS",
    "STUDENTS",
    "TEACHERS",
    "DPMSpec",
    "DatasetSpec",
    "Head",
    "License",
    "LossSpec",
    "NetworkSpec",
    "ProtocolSpec",
    "ReleasedCheckpoint",
    "ReleasedMapNames",
    "StudentSpec",
    "TeacherSpec",
    "protocol_of",
]
