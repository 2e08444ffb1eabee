"""The divergence of the student's DPM from the teacher's."""

from collections.abc import Callable

import torch
from torch import Tensor

from tiekd.losses.combine import AllSum, masked_mean
from tiekd.students.student import Prediction

TeacherDPM = Callable[[Tensor], Tensor]  # depth_teacher [B, 1, H, W] m -> q [B, K, H, W]
Divergence = Callable[[Tensor, Tensor], Tensor]  # as kl_divergence


def kl_divergence(q: Tensor, logits: Tensor) -> Tensor:
    """KL(q || softmax(logits)) of each pixel: [B, K, H, W] twice to [B, 1, H, W]."""
    log_p = torch.log_softmax(logits, dim=1)
    entropy = torch.special.entr(q).sum(dim=1, keepdim=True)
    cross_entropy = -(q * log_p).sum(dim=1, keepdim=True)
    return cross_entropy - entropy


class DPMPart:
    """L_DPM (TIE-KD): mean over pixels of KL(q || p), q the teacher's DPM, p the student's."""

    def __init__(self, teacher_dpm: TeacherDPM, divergence: Divergence = kl_divergence):
        self.teacher_dpm, self.divergence = teacher_dpm, divergence

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        return masked_mean(self.divergence(self.teacher_dpm(target), prediction.dpm_logits), valid, all_sum)
