"""Depth and entropy maps as color images, with a legend in metres."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DEPTH_COLORMAP = "inferno_r"  # near is bright; perceptually uniform, safe for color-blind readers
ENTROPY_COLORMAP = "viridis"
ColorRange = tuple[float, float]  # values of the first and the last color

# Labels of a legend, in order of preference: round depths first.
_LABEL_DIGITS = (1, 5, 2, 3, 7, 4, 6, 8, 9, 1.5)


@cache
def _colormap(name: str) -> np.ndarray:
    """256 colors, uint8 [256, 3]."""
    from matplotlib import colormaps  # slow to import

    return np.rint(colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)


def depth_colors(depth: np.ndarray, color_range: ColorRange) -> np.ndarray:
    """Color depth [H, W] m in equal steps of log depth over the range: uint8 [H, W, 3]."""
    low, high = np.log(color_range)
    return _apply_colormap((np.log(depth) - low) / (high - low), DEPTH_COLORMAP)


def entropy_colors(entropy: np.ndarray) -> np.ndarray:
    """Color entropy [H, W] in 0..1: uint8 [H, W, 3]."""
    return _apply_colormap(entropy, ENTROPY_COLORMAP)


def _apply_colormap(fractions: np.ndarray, name: str) -> np.ndarray:
    return _colormap(name)[np.rint(fractions.clip(0, 1) * 255).astype(np.uint8)]


def percentile_range(depth: np.ndarray) -> ColorRange:
    """The 2nd and the 98th percentile of depth [H, W] m, at least 1 % apart."""
    low, high = np.percentile(depth, (2, 98)).tolist()
    return low, max(high, low * 1.01)


def add_legend(colors: np.ndarray, color_range: ColorRange) -> np.ndarray:
    """Append a color bar with depths in metres to the right of a depth image uint8 [H, W, 3]."""
    height, width = colors.shape[:2]
    font = ImageFont.load_default(size=min(max(height // 22, 8), 48))
    line_height = round(font.getbbox("0")[3])
    labels = _legend_labels(color_range, height, line_height)
    bar_width, gap = 2 * line_height, line_height // 2
    legend_width = bar_width + 3 * gap + round(max(font.getlength(label) for label in labels))
    legend = np.full((height, legend_width, 3), 255, np.uint8)
    depths = np.geomspace(color_range[1], color_range[0], height)[:, None]  # far above near, as in most scenes
    legend[:, gap : gap + bar_width] = depth_colors(depths, color_range)
    image = Image.fromarray(np.concatenate([colors, legend], axis=1))
    draw = ImageDraw.Draw(image)
    for label, row in labels.items():
        draw.text((width + bar_width + 2 * gap, row - line_height / 2), label, fill="black", font=font)
    return np.asarray(image)


def _legend_labels(color_range: ColorRange, height: int, line_height: int) -> dict[str, float]:
    """Labels of a legend and their rows: as many round depths as fit."""
    low, high = np.log(color_range)
    labels: dict[str, float] = {}
    for depth in (digit * 10.0**power for digit in _LABEL_DIGITS for power in range(-3, 4)):
        row = (height - 1) * (1 - (np.log(depth) - low) / (high - low))
        fits = line_height / 2 <= row <= height - line_height
        if fits and all(abs(row - other) >= 1.5 * line_height for other in labels.values()):
            labels[f"{depth:g} m"] = row
    return labels or {f"{color_range[0]:.3g} m": height - line_height, f"{color_range[1]:.3g} m": line_height / 2}
