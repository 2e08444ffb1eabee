"""What a student is trained on: named, weighted parts.

To add a loss: write its part, add a factory here and its traits to `tiekd.config.presets.LOSSES`. The quirks of a run
(`tiekd/config/quirks.py`) are composed here: none of the parts knows of configs.
"""

from collections.abc import Callable

from tiekd.bins import DepthBins, kl_divergence, target_dpm
from tiekd.config import RunConfig
from tiekd.losses.chamfer import ChamferPart
from tiekd.losses.combine import DistillLoss, Part, Weighted
from tiekd.losses.depth import MSEPart, SIPart, SSIMPart
from tiekd.losses.dpm import DPMPart
from tiekd.losses.released import (
    SIGMA,
    DPMFromRow110,
    PaddedSSIMPart,
    SSIMFromRow110,
    TeacherDPM,
    WholeDPMPart,
    kl_with_epsilon,
    uniform_outside_dpm,
)

Factory = Callable[[RunConfig], dict[str, Weighted]]

OTHER_DPM = {"kl_epsilon", "rows_from_110", "uniform_outside"}  # quirks whose arithmetic needs the whole DPM


def _si(config: RunConfig) -> dict[str, Weighted]:
    weight = 1.0 if "ignored_weights" in config.quirks else config.loss.si_weight
    return {"si": Weighted(weight, SIPart(config.loss.si_mean_weight))}


def _si_chamfer(config: RunConfig) -> dict[str, Weighted]:
    return _si(config) | {"chamfer": Weighted(config.loss.chamfer_weight, ChamferPart())}


def _mse(config: RunConfig) -> dict[str, Weighted]:
    return {"mse": Weighted(1.0 if "ignored_weights" in config.quirks else config.loss.mse_weight, MSEPart())}


def _ssim(config: RunConfig) -> dict[str, Weighted]:
    return {"ssim": Weighted(config.loss.ssim_weight, _ssim_part(config))}


def _ssim_si(config: RunConfig) -> dict[str, Weighted]:
    return _ssim(config) | _si(config)


def _ssim_mse(config: RunConfig) -> dict[str, Weighted]:
    return _ssim(config) | _mse(config)


def _l_dpm(config: RunConfig) -> dict[str, Weighted]:
    return {"dpm": Weighted(1.0, _dpm_part(config))}


def _l_depth(config: RunConfig) -> dict[str, Weighted]:
    return {"depth": Weighted(1.0, _ssim_part(config))}


def _tie_kd(config: RunConfig) -> dict[str, Weighted]:
    """TIE-KD: scale * (alpha * L_DPM + (1 - alpha) * L_DEPTH)."""
    loss = config.loss
    return {
        "dpm": Weighted(loss.scale * loss.alpha, _dpm_part(config)),
        "depth": Weighted(loss.scale * (1 - loss.alpha), _ssim_part(config)),
    }


def _ssim_part(config: RunConfig) -> Part:
    """1 - SSIM under the quirks of a run."""
    quirks = config.quirks
    build = PaddedSSIMPart if "ssim_padded" in quirks else SSIMPart
    data_range = 1.0 if "ssim_unit_range" in quirks else config.loss.ssim_range or config.data.max_depth
    part = build(data_range, absolute="ssim_absolute" in quirks)
    return SSIMFromRow110(part) if "rows_from_110" in quirks else part


def _dpm_part(config: RunConfig) -> Part:
    """L_DPM under the quirks of a run."""
    if not config.quirks & OTHER_DPM:
        return DPMPart(DepthBins.of(config), dpm_sigma(config), config.loss.temperature)
    part = WholeDPMPart(dpm_target(config), kl_with_epsilon if "kl_epsilon" in config.quirks else kl_divergence)
    return DPMFromRow110(part) if "rows_from_110" in config.quirks else part


LOSSES: dict[str, Factory] = {
    "si": _si,
    "si_chamfer": _si_chamfer,
    "mse": _mse,
    "ssim": _ssim,
    "ssim_si": _ssim_si,
    "ssim_mse": _ssim_mse,
    "l_dpm": _l_dpm,
    "l_depth": _l_depth,
    "tie_kd": _tie_kd,
}


def dpm_sigma(config: RunConfig) -> float:
    """m; the spread of the teacher's density under the quirks of a run."""
    return SIGMA if "fixed_sigma" in config.quirks else config.loss.sigma


def dpm_target(config: RunConfig) -> TeacherDPM:
    """The teacher's DPM as L_DPM sees it under the quirks of a run, whether or not its loss has that part."""
    bins, sigma, temperature = DepthBins.of(config), dpm_sigma(config), config.loss.temperature
    compute = uniform_outside_dpm if "uniform_outside" in config.quirks else target_dpm
    return lambda depth_teacher: compute(depth_teacher, bins, sigma, temperature)


def build_loss(config: RunConfig) -> DistillLoss:
    """The loss of a run."""
    parts = LOSSES[config.loss.name](config)
    return DistillLoss(parts, config.data.min_depth, config.data.max_depth, masked="unmasked" not in config.quirks)
