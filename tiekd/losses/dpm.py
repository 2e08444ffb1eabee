"""L_DPM, the divergence of the student's DPM from the teacher's."""

from torch import Tensor

from tiekd.bins import DepthBins
from tiekd.losses.combine import AllSum, masked_mean
from tiekd.models.prediction import Prediction


class DPMTerm:
    """Mean over pixels of KL(q || p), q the teacher's DPM, p the student's (TIE-KD, https://arxiv.org/abs/2402.14340).

    sigma (m) and temperature are those of `tiekd.bins.target_dpm`.
    """

    def __init__(self, bins: DepthBins, sigma: float, temperature: float):
        self.bins, self.sigma, self.temperature = bins, sigma, temperature

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        return masked_mean(prediction.divergence(target, self.bins, self.sigma, self.temperature), valid, all_sum)
