"""What a launch says of its runs before they begin: nothing is wrong, but the results may surprise. Without PyTorch."""

from collections.abc import Iterable

from tiekd.config import RunConfig
from tiekd.distill.target_floor import floor_line


def remarks(configs: Iterable[RunConfig]) -> str:
    """Return the remarks on some runs whose inputs exist, each a line; "" if there are none."""
    configs = list(configs)
    return "\n".join(filter(None, (_scale_line(configs), floor_line(configs))))


def _scale_line(configs: list[RunConfig]) -> str:
    """Return a line on the runs that are evaluated in meters, although no loss of theirs depends on the scale of the depth."""
    found = [c for c in configs if not c.loss.fixes_scale and all(s.alignment == "none" for s in c.evaluation.specs.values())]
    if not found:
        return ""
    losses = ", ".join(dict.fromkeys(part.name for c in found for part in c.loss.terms.values()))
    runs = "" if len(configs) == 1 else f" in {len(found)} of {len(configs)} runs"
    return (
        f"no loss fixes the scale of the depth{runs} ({losses}); add a part such as si, or evaluate with an alignment such as "
        f"{found[0].evaluation.protocol}+median; see docs/how-to/losses.md"
    )
