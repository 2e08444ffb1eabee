"""The divergence of the student's DPM from the teacher's."""

import torch
from torch import Tensor

from tiekd.bins import DepthBins, target_dpm
from tiekd.losses.combine import AllSum, masked_mean
from tiekd.students.student import Prediction


class DPMPart:
    """L_DPM (TIE-KD): mean over pixels of KL(q || p), q the teacher's DPM, p the student's."""

    def __init__(self, bins: DepthBins, sigma: float, temperature: float):
        self.bins, self.sigma, self.temperature = bins, sigma, temperature

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        q = target_dpm(target, self.bins, self.sigma, self.temperature)
        log_p = torch.log_softmax(prediction.dpm_logits, dim=1)
        entropy = torch.special.entr(q).sum(dim=1, keepdim=True)
        cross_entropy = -(q * log_p).sum(dim=1, keepdim=True)
        return masked_mean(cross_entropy - entropy, valid, all_sum)
