"""The labels by which tables tell runs apart, and the names of the metrics."""

from tiekd.config import RunConfig, StudentConfig
from tiekd.config.specs import LOSSES, NETWORKS

LABELS = ("dataset", "teacher", "method", "loss", "backbone")
TEACHER = "Teacher"
BASELINE = "Baseline"
CORRECTED = "corrected"
RELEASED = "released"
METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")
HIGHER_IS_BETTER = frozenset({"delta1", "delta2", "delta3"})


def config_names(config: RunConfig) -> dict[str, str]:
    """LABELS by the names that configs use.

    A teacher in training is its own teacher. A Baseline has none, even with the quirk baseline_on_teacher, as in the published
    tables.
    """
    student = config.student
    taught_by = config.teacher.name if config.teacher and config.loss.target == "teacher" else ""
    teacher = student.name if config.method == TEACHER else taught_by
    backbone = student.name if _as_preset(student) else str(student.encoder)
    return dict(zip(LABELS, (config.data.name, teacher, config.method, config.loss.name, backbone), strict=True))


def labels(config: RunConfig) -> dict[str, str]:
    """LABELS as the published tables print them."""
    student, plain = config.student, config_names(config)
    backbone = NETWORKS[student.name].label if _as_preset(student) else str(student.encoder)
    return plain | {"loss": LOSSES[plain["loss"]].label, "backbone": backbone}


def fidelity(config: RunConfig) -> str:
    """The quirks that change a run: "corrected" (none), "released" (all that could), or their names."""
    possible = config.model_copy(update={"fidelity": RELEASED}).quirks
    if config.quirks == possible and possible:
        return RELEASED
    return ", ".join(sorted(config.quirks)) or CORRECTED


def _as_preset(student: StudentConfig) -> bool:
    """Whether the encoder is the default of the student's name."""
    return student.encoder == NETWORKS[student.name].defaults.get("student", {}).get("encoder")
