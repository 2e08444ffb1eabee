"""The divergence of the student's DPM from the teacher's."""

from torch import Tensor

from tiekd.bins import DepthBins
from tiekd.losses.combine import AllSum, masked_mean
from tiekd.models.student import Prediction


class DPMTerm:
    """L_DPM (TIE-KD): mean over pixels of KL(q || p), q the teacher's DPM, p the student's.

    sigma in m and temperature are those of `tiekd.bins.target_dpm`.
    """

    def __init__(self, bins: DepthBins, sigma: float, temperature: float):
        self.bins, self.sigma, self.temperature = bins, sigma, temperature

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        return masked_mean(prediction.divergence(target, self.bins, self.sigma, self.temperature), valid, all_sum)
