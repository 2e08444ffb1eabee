"""The labels by which tables tell runs apart, and the names of the metrics."""

from collections.abc import Iterable

from tiekd.config import LossConfig, RunConfig, StudentConfig
from tiekd.config.specs import NETWORKS

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
    taught_by = config.teacher.name if config.teacher and "teacher" in config.loss.targets else ""
    teacher = student.name if config.method == TEACHER else taught_by
    backbone = student.name if _as_preset(student) else str(student.encoder)
    loss = _sum(config.loss, config.loss.terms)
    return dict(zip(LABELS, (config.data.name, teacher, config.method, loss, backbone), strict=True))


def labels(config: RunConfig) -> dict[str, str]:
    """LABELS as the published tables print them."""
    student, plain = config.student, config_names(config)
    backbone = NETWORKS[student.name].label if _as_preset(student) else str(student.encoder)
    terms, mixed = config.loss.terms.values(), config.loss.targets >= {"teacher", "ground_truth"}
    names = [part.spec.label + (" (ground truth)" if mixed and part.target == "ground_truth" else "") for part in terms]
    return plain | {"loss": _sum(config.loss, names), "backbone": backbone}


def _sum(loss: LossConfig, names: Iterable[str]) -> str:
    """The sum of the parts of a loss, given their names: "SI + 0.1 L_DPM"."""
    weighted = []
    for name, part in zip(names, loss.terms.values(), strict=True):
        summand = f"({name})" if "," in name else name
        weighted.append(name if part.weight == 1 else f"{part.weight:g} {summand}")
    return " + ".join(weighted)


def fidelity(config: RunConfig) -> str:
    """The quirks that change a run: "corrected" (none), "released" (all that could), or their names."""
    possible = config.model_copy(update={"fidelity": RELEASED}).quirks
    if config.quirks == possible and possible:
        return RELEASED
    return ", ".join(sorted(config.quirks)) or CORRECTED


def _as_preset(student: StudentConfig) -> bool:
    """Whether the encoder is the default of the student's name."""
    return student.encoder == NETWORKS[student.name].defaults.get("student", {}).get("encoder")
