"""Maps as pictures for people: colours from matplotlib's tables, and a legend that says what they mean."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DEPTH = "inferno_r"  # near is bright; perceptually uniform, and told apart by colour-blind readers
ENTROPY = "viridis"
ColorRange = tuple[float, float]  # lowest and highest value of the colours


@cache
def _table(name: str) -> np.ndarray:
    from matplotlib import colormaps  # slow to load

    return np.rint(colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)


def depth_colors(depth: np.ndarray, scale: ColorRange) -> np.ndarray:
    """Depth [H, W] m as uint8 [H, W, 3], in equal steps of log depth between the scale's ends."""
    low, high = np.log(scale)
    return _colors((np.log(depth) - low) / (high - low), DEPTH)


def entropy_colors(entropy: np.ndarray) -> np.ndarray:
    """Entropy [H, W], 0 to 1, as uint8 [H, W, 3]."""
    return _colors(entropy, ENTROPY)


def _colors(shares: np.ndarray, name: str) -> np.ndarray:
    return _table(name)[np.rint(shares.clip(0, 1) * 255).astype(np.uint8)]


def percentile_range(depth: np.ndarray) -> ColorRange:
    """From a depth [H, W] m that 2 % of the pixels lie below to one that 2 % lie beyond; never empty."""
    low, high = np.percentile(depth, (2, 98)).tolist()
    return low, max(high, low * 1.01)


def add_legend(picture: np.ndarray, scale: ColorRange) -> np.ndarray:
    """A depth picture uint8 [H, W, 3] with a strip at its right: the colours, and round depths among them in metres."""
    height = picture.shape[0]
    font = ImageFont.load_default(size=min(max(height // 22, 8), 48))
    line = font.getbbox("0")[3]
    places = _places(scale, height, line)
    bar, gap = 2 * line, line // 2
    width = bar + 3 * gap + round(max(font.getlength(label) for label in places))
    strip = np.full((height, width, 3), 255, np.uint8)
    depths = np.geomspace(scale[1], scale[0], height)[:, None]  # far above near, as in most scenes
    strip[:, gap : gap + bar] = depth_colors(depths, scale)
    image = Image.fromarray(np.concatenate([picture, strip], axis=1))
    draw = ImageDraw.Draw(image)
    for label, place in places.items():
        draw.text((picture.shape[1] + bar + 2 * gap, place - line / 2), label, fill="black", font=font)
    return np.asarray(image)


def _places(scale: ColorRange, height: int, line: int) -> dict[str, float]:
    """Depths to write and the rows of a legend where they lie: round ones, the roundest first, as many as have room."""
    low, high = np.log(scale)
    places: dict[str, float] = {}
    for depth in (digit * 10.0**power for digit in (1, 5, 2, 3, 7, 4, 6, 8, 9, 1.5) for power in range(-3, 4)):
        place = (height - 1) * (1 - (np.log(depth) - low) / (high - low))
        has_room = all(abs(place - other) >= 1.5 * line for other in places.values())
        if line / 2 <= place <= height - line and has_room:
            places[f"{depth:g} m"] = place
    return places or {f"{scale[0]:.3g} m": height - line, f"{scale[1]:.3g} m": line / 2}
