"""What a run is called: the columns that tell the rows of a table apart."""

from tiekd.config import RunConfig, StudentConfig
from tiekd.config.specs import LOSSES, NETWORKS

LABELS = ("dataset", "teacher", "method", "loss", "backbone")
TEACHER = "Teacher"
BASELINE = "Baseline"
CORRECTED = "corrected"
RELEASED = "released"
METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")


def names(config: RunConfig) -> dict[str, str]:
    """LABELS in the words of configs, as a user types them.

    A teacher that is trained is its own teacher. A Baseline has none, not even where the released code gives it one (the quirk
    baseline_on_teacher): so do the published tables call it.
    """
    student = config.student
    taught_by = config.teacher.name if config.loss.target == "teacher" else ""
    teacher = student.name if config.method == TEACHER else taught_by
    backbone = student.name if _as_preset(student) else student.encoder
    return dict(zip(LABELS, (config.data.dataset, teacher, config.method, config.loss.name, backbone), strict=True))


def labels(config: RunConfig) -> dict[str, str]:
    """LABELS as the published tables write them."""
    student, plain = config.student, names(config)
    backbone = NETWORKS[student.name].label if _as_preset(student) else student.encoder
    return plain | {"loss": LOSSES[plain["loss"]].label, "backbone": backbone}


def fidelity(config: RunConfig) -> str:
    """What acts of the released code's quirks: "corrected" (none), "released" (every one that can), or their names."""
    possible = config.model_copy(update={"fidelity": RELEASED}).quirks
    if config.quirks == possible and possible:
        return RELEASED
    return ", ".join(sorted(config.quirks)) or CORRECTED


def _as_preset(student: StudentConfig) -> bool:
    """Whether the encoder is the one that the student's name stands for."""
    return student.encoder == NETWORKS[student.name].defaults.get("student", {}).get("encoder")
