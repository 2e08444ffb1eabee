"""Teachers. To a training a teacher is a folder of its depth maps (maps.py)."""

from tiekd.teachers.maps import MapWriter, TeacherMaps

__all__ = ["MapWriter", "TeacherMaps"]
