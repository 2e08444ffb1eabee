"""The evaluation protocols. To add one: a crop in tiekd/inference/protocols.py unless it has one, and an entry here."""

from tiekd.config.specs.kinds import ProtocolSpec

_GARG = "tiekd.inference.protocols:garg_crop"

PROTOCOLS: dict[str, ProtocolSpec] = {
    "adabins-kb-garg": ProtocolSpec(label="Garg crop of the kb-crop, 80 m", crop=_GARG, min_depth=1e-3, max_depth=80.0),
    "bts-garg": ProtocolSpec(
        label="Garg crop of the whole frame, 80 m", crop=_GARG, of_full_frame=True, min_depth=1e-3, max_depth=80.0
    ),
    "nyu-eigen": ProtocolSpec(
        label="Eigen crop of NYU, 10 m", crop="tiekd.inference.protocols:eigen_nyu_crop", min_depth=1e-3, max_depth=10.0
    ),
    "none": ProtocolSpec(label="every pixel within the data's range", crop="tiekd.inference.protocols:whole_frame"),
}
