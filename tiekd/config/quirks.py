"""Differences between the released code and the method: each one that changes numbers is a named switch.

`fidelity: corrected`, the default, switches all of them off, `fidelity: released` all on, a list of names only those.
docs/fidelity.md gives the effect of each in numbers. Sources are files of the released code at commit 989ec03.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

RELEASED_SIGMA = 0.5  # m; of every released TIE-KD run
QUIRKS_OF_DPM = frozenset({"fixed_sigma", "kl_epsilon", "uniform_outside"})  # the arithmetic of L_DPM with the released DPM


@dataclass(frozen=True)
class Quirk:
    released: str  # what the released code does
    corrected: str  # what is done without it
    source: str
    losses: tuple[str, ...] | None = None  # the losses that it changes; None: all
    setting: str | None = None  # of `loss`: it changes only losses that read it
    overrules: tuple[str, ...] = ()  # settings of `loss` that it makes irrelevant
    when: Callable[[Any], bool] = lambda config: True  # further condition on a RunConfig

    def acts_on(self, config: Any) -> bool:
        """Whether it changes the numbers of a RunConfig."""
        if self.losses is not None and config.loss.name not in self.losses:
            return False
        return (
            self.setting is None or any(self.setting in part.spec.reads for part in config.loss.terms.values())
        ) and self.when(config)


QUIRKS: dict[str, Quirk] = {
    "fixed_sigma": Quirk(
        "sigma is always 0.5 m in TIE-KD; only L_DPM alone follows the config",
        "loss.sigma",
        "losses/tie_kd_loss.py:61-62",
        ("tie_kd",),
        overrules=("sigma",),
    ),
    "ignored_weights": Quirk(
        "the weights of MSE and of the second term of SSIM+SI and SSIM+MSE are ignored: they are 1",
        "loss.mse_weight, loss.si_weight",
        "losses/mse_loss.py:25, ssim_si_loss.py:62-65, ssim_mse_loss.py:41-44",
        ("mse", "ssim_si", "ssim_mse"),
        overrules=("mse_weight", "si_weight"),
    ),
    "unmasked": Quirk(
        "pixels without a teacher depth count in every loss except SI and the chamfer distance, which count all above 0 m",
        "a pixel counts where min_depth < target <= max_depth",
        "losses/*.py; si_loss.py:39-63",
    ),
    "rows_from_110": Quirk(
        "crops 704 px wide lose their first 110 rows; 110 rows of zeros are appended and count in the means",
        "every row of the crop counts",
        "losses/l_dpm_loss.py:61, l_depth_loss.py:37",
        ("l_dpm", "l_depth", "tie_kd"),
        when=lambda config: config.data.train_crop[1] == 704,
    ),
    "kl_epsilon": Quirk(
        "the divergence is sum q log(q / (p + 1e-7) + 1e-7) over the bins with p != 0",
        "sum q log(q / p), from the logits",
        "losses/l_dpm_loss.py:77",
        setting="sigma",
    ),
    "uniform_outside": Quirk(
        "a teacher depth far from every bin gets the uniform DPM",
        "the nearest bin always has a share",
        "losses/l_dpm_loss.py:73",
        setting="sigma",
    ),
    "ssim_unit_range": Quirk(
        "SSIM's constants assume a dynamic range of 1, on metres",
        "the range is loss.ssim_range, by default data.max_depth",
        "losses/ssim.py:39-40",
        setting="ssim_range",
        overrules=("ssim_range",),
    ),
    "ssim_absolute": Quirk(
        "SSIM uses absolute values of the covariance and the variances: anticorrelated windows count as similar",
        "the covariance keeps its sign",
        "losses/ssim.py:35-37",
        setting="ssim_range",
    ),
    "ssim_padded": Quirk(
        "SSIM's windows extend beyond the border, where both maps are 0",
        "only windows inside the image count",
        "losses/ssim.py:28-37",
        setting="ssim_range",
    ),
    "alpha_unbounded": Quirk(
        "alpha may exceed 1 (BTS with ResNet50 on KITTI: 1.5), so that L_DEPTH is maximized",
        "alpha lies in 0 .. 1",
        "configs/students/TIE-KD_bts_r50_KITTI.py:15",
        ("tie_kd",),
        when=lambda config: config.loss.alpha > 1,
    ),
    "baseline_on_teacher": Quirk(
        "the Baseline is trained on the maps of the teacher, not on ground truth",
        "the Baseline is trained on ground truth",
        "decode_heads/densedepth_head_base_custom_kd.py:178",
        ("si",),
        when=lambda config: config.loss.target == "ground_truth" and not config.student.is_teacher,
    ),
    "teacher_not_rotated": Quirk(
        "a random rotation moves image and ground truth but not the teacher's map",
        "all are rotated together",
        "pipelines/transforms_kd2.py:215",
        when=lambda config: config.reads_teacher and config.augment.rotate_p > 0 and config.augment.rotate_degrees > 0,
    ),
    "gamma_on_255": Quirk(
        "random gamma acts on 0 .. 255, which scales brightness by 0.57 to 1.74 and then clips",
        "gamma acts on 0 .. 1",
        "pipelines/transforms_kd2.py, ColorAug",
        when=lambda config: config.augment.colour_p > 0 and config.augment.gamma != (1.0, 1.0),
    ),
}
