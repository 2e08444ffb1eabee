"""L_DPM, the divergence of the student's DPM from the teacher's."""

from torch import Tensor

from tiekd.bins import DepthBins
from tiekd.config.specs import DEFAULT_DPM
from tiekd.losses.combine import AllSum, masked_mean
from tiekd.models.prediction import Prediction


class DPMTerm:
    """Mean over pixels of KL(q || p), q the teacher's DPM, p the student's (TIE-KD, https://arxiv.org/abs/2402.14340).

    sigma (m), temperature and dpm are those of `tiekd.bins.target_dpm`.
    """

    def __init__(self, bins: DepthBins, sigma: float, temperature: float, dpm: str = DEFAULT_DPM):
        self.bins, self.target = bins, (sigma, temperature, dpm)

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        return masked_mean(prediction.divergence(target, self.bins, *self.target), valid, all_sum)
