"""How the teacher's depth becomes a distribution over bins.

To add one: its scores in tiekd/bins.py, the same in tiekd/models/fused_triton.py and, without PyTorch, in
tiekd/distill/target_floor.py, and an entry here.
"""

from tiekd.config.specs.kinds import DPMSpec

DEFAULT_DPM = "softmax_density"

DPMS: dict[str, DPMSpec] = {
    DEFAULT_DPM: DPMSpec(
        label="softmax of the Gaussian's density / temperature",
        scores="tiekd.bins:softmax_density",
        reads=("sigma", "temperature"),
        source="losses/l_dpm_loss.py of the released TIE-KD code",
    ),
    "density": DPMSpec(
        label="the Gaussian's density, normalized",
        scores="tiekd.bins:density",
        reads=("sigma",),
        source="soft labels of Diaz and Marathe (CVPR 2019) with squared distances",
    ),
    "integral": DPMSpec(
        label="the Gaussian integrated over each bin, normalized",
        scores="tiekd.bins:integral",
        reads=("sigma",),
        source="HL-Gaussian of Imani and White (ICML 2018); a summary by others gives it as Eq. 2 of the paper of TIE-KD",
    ),
    "two_hot": DPMSpec(
        label="linear between the two nearest centers",
        scores="tiekd.bins:two_hot",
        reads=(),
        source="support of MuZero (https://arxiv.org/abs/1911.08265)",
    ),
    "laplace": DPMSpec(
        label="density of a Laplace distribution of standard deviation sigma, normalized",
        scores="tiekd.bins:laplace",
        reads=("sigma",),
        source="soft labels of Diaz and Marathe (CVPR 2019) with absolute distances",
    ),
}
