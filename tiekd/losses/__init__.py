"""Losses: named, weighted terms, built from a run's config and its quirks (tiekd/config/quirks.py).

The terms do not know the config. To add a loss: a module here with a function that builds its terms from a config, and an entry
in tiekd/config/specs/losses.py.
"""

from pkgutil import resolve_name

from tiekd.bins import DepthBins, kl_divergence, target_dpm
from tiekd.config import RunConfig
from tiekd.losses.chamfer import ChamferTerm
from tiekd.losses.combine import IMAGE, DistillLoss, LossTerm, WeightedTerm
from tiekd.losses.depth import MSETerm, SITerm, SSIMTerm
from tiekd.losses.dpm import DPMTerm
from tiekd.losses.released import (
    DenseDPMTerm,
    DPMFromRow110,
    PaddedSSIMTerm,
    SSIMFromRow110,
    TargetDPM,
    kl_with_epsilon,
    uniform_outside_dpm,
)

_DENSE_DPM_QUIRKS = {"kl_epsilon", "rows_from_110", "uniform_outside"}  # need the DPM as a map over all bins

_IN_BATCH = {"teacher": "depth_teacher", "ground_truth": "depth_gt", "image": IMAGE}


def build_loss(config: RunConfig) -> DistillLoss:
    """Build the loss of a run: the terms of its parts, each with the target of its part; a named loss is one part.

    Terms of a named loss keep their names. A part with one term gives it its own name, one with several `PART.TERM`.
    """
    terms: dict[str, WeightedTerm] = {}
    # First the losses that read a distribution: the pass over its bins computes the depth, too.
    for key, part in sorted(config.loss.terms.items(), key=lambda item: not item[1].spec.needs_head):
        target = _IN_BATCH["teacher" if "baseline_on_teacher" in config.quirks else part.target]
        built: dict[str, WeightedTerm] = resolve_name(part.spec.build)(config)
        for name, (weight, term, _) in built.items():
            in_parts = key if len(built) == 1 else f"{key}.{name}"
            terms[in_parts if config.loss.parts else name] = WeightedTerm(part.weight * weight, term, target)
    return DistillLoss(terms, *config.data.depth_range, masked="unmasked" not in config.quirks)


def si(config: RunConfig) -> dict[str, WeightedTerm]:
    """Scale-invariant log error."""
    weight = 1.0 if "ignored_weights" in config.quirks else config.loss.si_weight
    return {"si": WeightedTerm(weight, SITerm(config.loss.si_mean_weight))}


def si_chamfer(config: RunConfig) -> dict[str, WeightedTerm]:
    """Scale-invariant log error, and the chamfer distance of AdaBins' bins."""
    return si(config) | {"chamfer": WeightedTerm(config.loss.chamfer_weight, ChamferTerm())}


def mse(config: RunConfig) -> dict[str, WeightedTerm]:
    """Mean squared error."""
    return {"mse": WeightedTerm(1.0 if "ignored_weights" in config.quirks else config.loss.mse_weight, MSETerm())}


def ssim(config: RunConfig) -> dict[str, WeightedTerm]:
    """1 - SSIM."""
    return {"ssim": WeightedTerm(config.loss.ssim_weight, _ssim_term(config))}


def ssim_si(config: RunConfig) -> dict[str, WeightedTerm]:
    """1 - SSIM, and scale-invariant log error."""
    return ssim(config) | si(config)


def ssim_mse(config: RunConfig) -> dict[str, WeightedTerm]:
    """1 - SSIM, and mean squared error."""
    return ssim(config) | mse(config)


def l_dpm(config: RunConfig) -> dict[str, WeightedTerm]:
    """L_DPM, the divergence of the student's DPM from the teacher's."""
    return {"dpm": WeightedTerm(1.0, _dpm_term(config))}


def l_depth(config: RunConfig) -> dict[str, WeightedTerm]:
    """L_DEPTH, 1 - SSIM with weight 1."""
    return {"depth": WeightedTerm(1.0, _ssim_term(config))}


def tie_kd(config: RunConfig) -> dict[str, WeightedTerm]:
    """TIE-KD: scale * (alpha * L_DPM + (1 - alpha) * L_DEPTH)."""
    loss = config.loss
    return {
        "dpm": WeightedTerm(loss.scale * loss.alpha, _dpm_term(config)),
        "depth": WeightedTerm(loss.scale * (1 - loss.alpha), _ssim_term(config)),
    }


def dpm_target(config: RunConfig) -> TargetDPM:
    """The teacher's DPM as L_DPM computes it under the quirks of a run, whether or not its loss has that term."""
    bins = DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing)
    sigma, temperature, dpm = config.dpm_sigma, config.loss.temperature, config.loss.dpm
    if "uniform_outside" in config.quirks:
        return lambda depth_teacher: uniform_outside_dpm(depth_teacher, bins, sigma, temperature)
    return lambda depth_teacher: target_dpm(depth_teacher, bins, sigma, temperature, dpm)


def _dpm_term(config: RunConfig) -> LossTerm:
    """L_DPM under the quirks of a run."""
    if not config.quirks & _DENSE_DPM_QUIRKS:
        return DPMTerm(
            DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing),
            config.dpm_sigma,
            config.loss.temperature,
            config.loss.dpm,
        )
    term = DenseDPMTerm(dpm_target(config), kl_with_epsilon if "kl_epsilon" in config.quirks else kl_divergence)
    return DPMFromRow110(term) if "rows_from_110" in config.quirks else term


def _ssim_term(config: RunConfig) -> LossTerm:
    """1 - SSIM under the quirks of a run."""
    quirks = config.quirks
    data_range = 1.0 if "ssim_unit_range" in quirks else config.loss.ssim_range or config.data.max_depth
    build = PaddedSSIMTerm if "ssim_padded" in quirks else SSIMTerm
    term = build(data_range, absolute="ssim_absolute" in quirks)
    return SSIMFromRow110(term) if "rows_from_110" in quirks else term
