"""The evaluation protocols. To add one: a crop in tiekd/inference/protocols.py unless it has one, and an entry here.

Any of them takes a smaller cap and an alignment: NAME[@CAPm][+ALIGNMENT], such as bts-garg@50m+median.
"""

import re
from dataclasses import replace

from tiekd.config.specs.kinds import ProtocolSpec
from tiekd.errors import unknown

_GARG = "tiekd.inference.protocols:garg_crop"

PROTOCOLS: dict[str, ProtocolSpec] = {
    "adabins-kb-garg": ProtocolSpec(label="Garg crop of the kb-crop, 80 m", crop=_GARG, min_depth=1e-3, max_depth=80.0),
    "bts-eigen": ProtocolSpec(
        label="Eigen crop of the whole KITTI frame, 80 m",
        crop="tiekd.inference.protocols:eigen_kitti_crop",
        of_full_frame=True,
        min_depth=1e-3,
        max_depth=80.0,
    ),
    "bts-garg": ProtocolSpec(
        label="Garg crop of the whole frame, 80 m", crop=_GARG, of_full_frame=True, min_depth=1e-3, max_depth=80.0
    ),
    "nyu-eigen": ProtocolSpec(
        label="Eigen crop of NYU, 10 m", crop="tiekd.inference.protocols:eigen_nyu_crop", min_depth=1e-3, max_depth=10.0
    ),
    "none": ProtocolSpec(label="every pixel within the data's range", crop="tiekd.inference.protocols:whole_frame"),
}

# What is fitted to each image's ground truth; the formulas are in tiekd/inference/alignment.py.
ALIGNMENTS: dict[str, str] = {
    "none": "as predicted",
    "median": "scale: ratio of the medians",
    "log_lsq": "scale: least squares of log depth",
    "affine_depth": "scale and shift: least squares of depth",
    "affine_disparity": "scale and shift: least squares of 1 / depth",
}
_NAME = re.compile(r"(?P<base>[^@+]*)(?:@(?P<cap>[^@+]*))?(?:\+(?P<alignment>.*))?", re.DOTALL)
_CAP = r"(\d+(?:\.\d+)?)m"
PATTERN = rf"^({'|'.join(PROTOCOLS)})(@{_CAP})?(\+({'|'.join(ALIGNMENTS)}))?$"


def protocol_of(name: str, setting: str) -> ProtocolSpec:
    """The protocol NAME[@CAPm][+ALIGNMENT]. Raises ValueError, which names `setting`, for one that does not exist."""
    parts = _NAME.fullmatch(name)
    base, cap, alignment = parts.group("base", "cap", "alignment") if parts else (name, None, None)
    if base not in PROTOCOLS:
        raise ValueError(f"{unknown(setting, base, PROTOCOLS)}; each with or without @CAPm and +ALIGNMENT")
    spec = PROTOCOLS[base]
    if cap is not None:
        meters = float(found[1]) if (found := re.fullmatch(_CAP, cap)) else 0.0
        if not (spec.min_depth or 0) < meters <= (spec.max_depth or meters):
            most = f" of at most {spec.max_depth:g} m" if spec.max_depth else ""
            raise ValueError(f"{setting}: {name!r} needs a cap{most} such as {base}@5m, got {cap!r}")
        spec = replace(spec, label=f"{spec.label}, cap {meters:g} m", max_depth=meters)
    if alignment is not None:
        if alignment not in ALIGNMENTS:
            raise ValueError(f"{setting}: {name!r} needs an alignment: {unknown('alignment', alignment, ALIGNMENTS)}")
        spec = replace(spec, label=f"{spec.label}, {ALIGNMENTS[alignment]}", alignment=alignment)
    return spec
