"""What a student is trained on: named, weighted parts.

To add a loss: write its part, add a factory here and its traits to `tiekd.presets.LOSSES`.
"""

from collections.abc import Callable

from tiekd.bins import DepthBins
from tiekd.config import DataConfig, LossConfig, RunConfig
from tiekd.losses.combine import DistillLoss, Weighted
from tiekd.losses.depth import MSEPart, SIPart, SSIMPart
from tiekd.losses.dpm import DPMPart

Factory = Callable[[LossConfig, DataConfig, DepthBins], dict[str, Weighted]]


def _si(loss: LossConfig, data: DataConfig, bins: DepthBins) -> dict[str, Weighted]:
    return {"si": Weighted(loss.si_weight, SIPart(loss.si_mean_weight))}


def _mse(loss: LossConfig, data: DataConfig, bins: DepthBins) -> dict[str, Weighted]:
    return {"mse": Weighted(loss.mse_weight, MSEPart())}


def _ssim(loss: LossConfig, data: DataConfig, bins: DepthBins) -> dict[str, Weighted]:
    return {"ssim": Weighted(loss.ssim_weight, SSIMPart(loss.ssim_range or data.max_depth))}


def _ssim_si(loss: LossConfig, data: DataConfig, bins: DepthBins) -> dict[str, Weighted]:
    return _ssim(loss, data, bins) | _si(loss, data, bins)


def _ssim_mse(loss: LossConfig, data: DataConfig, bins: DepthBins) -> dict[str, Weighted]:
    return _ssim(loss, data, bins) | _mse(loss, data, bins)


def _l_dpm(loss: LossConfig, data: DataConfig, bins: DepthBins) -> dict[str, Weighted]:
    return {"dpm": Weighted(1.0, DPMPart(bins, loss.sigma, loss.temperature))}


def _l_depth(loss: LossConfig, data: DataConfig, bins: DepthBins) -> dict[str, Weighted]:
    return {"depth": Weighted(1.0, SSIMPart(loss.ssim_range or data.max_depth))}


def _tie_kd(loss: LossConfig, data: DataConfig, bins: DepthBins) -> dict[str, Weighted]:
    """TIE-KD: scale * (alpha * L_DPM + (1 - alpha) * L_DEPTH)."""
    share = {"dpm": loss.alpha, "depth": 1 - loss.alpha}
    parts = _l_dpm(loss, data, bins) | _l_depth(loss, data, bins)
    return {name: Weighted(loss.scale * share[name], parts[name].part) for name in parts}


LOSSES: dict[str, Factory] = {
    "si": _si,
    "mse": _mse,
    "ssim": _ssim,
    "ssim_si": _ssim_si,
    "ssim_mse": _ssim_mse,
    "l_dpm": _l_dpm,
    "l_depth": _l_depth,
    "tie_kd": _tie_kd,
}


def build_loss(config: RunConfig) -> DistillLoss:
    """The loss of a run."""
    data = config.data
    bins = DepthBins(config.bins.n_bins, data.min_depth, data.max_depth, config.bins.spacing)
    parts = LOSSES[config.loss.name](config.loss, data, bins)
    return DistillLoss(parts, data.min_depth, data.max_depth)
