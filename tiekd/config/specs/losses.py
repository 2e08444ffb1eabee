"""The losses. To add one: a module of tiekd/losses with a function that builds its terms, and an entry here."""

from tiekd.config.specs.kinds import LossSpec

_SI = ("si_weight", "si_mean_weight")
_SSIM = ("ssim_weight", "ssim_range")

LOSSES: dict[str, LossSpec] = {
    "si": LossSpec(label="SI", build="tiekd.losses:si", reads=_SI),
    "si_chamfer": LossSpec(
        label="SI, Chamfer",
        build="tiekd.losses:si_chamfer",
        reads=(*_SI, "chamfer_weight"),
        head="adaptive_bins",
        needs_head=True,
    ),
    "mse": LossSpec(label="MSE", build="tiekd.losses:mse", reads=("mse_weight",)),
    "ssim": LossSpec(label="SSIM", build="tiekd.losses:ssim", reads=_SSIM, needs_dense_target=True),
    "ssim_si": LossSpec(label="SSIM, SI", build="tiekd.losses:ssim_si", reads=(*_SSIM, *_SI), needs_dense_target=True),
    "ssim_mse": LossSpec(
        label="SSIM, MSE", build="tiekd.losses:ssim_mse", reads=(*_SSIM, "mse_weight"), needs_dense_target=True
    ),
    "l_dpm": LossSpec(
        label="L_DPM",
        build="tiekd.losses:l_dpm",
        method="TIE-KD",
        reads=("dpm", "sigma", "temperature"),
        head="dpm",
        needs_head=True,
        needs_dense_target=True,
    ),
    "l_depth": LossSpec(
        label="L_DEPTH",
        build="tiekd.losses:l_depth",
        method="TIE-KD",
        reads=("ssim_range",),
        head="dpm",
        needs_dense_target=True,
    ),
    "tie_kd": LossSpec(
        label="L_DPM, L_DEPTH",
        build="tiekd.losses:tie_kd",
        method="TIE-KD",
        reads=("alpha", "scale", "dpm", "sigma", "temperature", "ssim_range"),
        head="dpm",
        needs_head=True,
        needs_dense_target=True,
    ),
    "gradient": LossSpec(label="Gradient", build="tiekd.losses.gradient:gradient", reads=(), frees_scale=True),
    "ssi_mae": LossSpec(label="SSI MAE", build="tiekd.losses.invariant:ssi_mae", reads=(), frees_scale=True),
    "ssi_trimmed": LossSpec(label="SSI trimmed", build="tiekd.losses.invariant:ssi_trimmed", reads=(), frees_scale=True),
    "ssi_log": LossSpec(label="SSI log", build="tiekd.losses.invariant:ssi_log", reads=(), frees_scale=True),
    "berhu": LossSpec(label="berHu", build="tiekd.losses.depth:berhu", reads=()),
    "virtual_normal": LossSpec(
        label="Virtual normals", build="tiekd.losses.geometry:virtual_normal", reads=("fov",), frees_scale=True
    ),
    "normal": LossSpec(label="Normals", build="tiekd.losses.geometry:normal", reads=("fov",), frees_scale=True),
    "smoothness": LossSpec(
        label="Smoothness", build="tiekd.losses.gradient:smoothness", reads=(), frees_scale=True, of_image=True
    ),
    "cross_entropy": LossSpec(
        label="Cross-entropy", build="tiekd.losses.ordinal:cross_entropy", reads=(), head="dpm", needs_head=True
    ),
    "ordinal": LossSpec(label="Ordinal", build="tiekd.losses.ordinal:ordinal", reads=(), head="dpm", needs_head=True),
    "ranking": LossSpec(label="Ranking", build="tiekd.losses.ranking:ranking", reads=(), frees_scale=True),
    "local_norm": LossSpec(label="Local normalization", build="tiekd.losses.invariant:local_norm", reads=(), frees_scale=True),
}
