"""The target of L_DPM: its mean against the teacher's depth, the depths of the data below it, and the target at some depths."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.figures.figures import ReportFigure
from reports.figures.style import GRAY, PAGE_WIDTH, SERIES_COLORS
from tiekd.config import RunConfig
from tiekd.distill.target_floor import Histogram, bins_of, target_of

N_DEPTHS = 400  # of the curve
N_BARS = 60  # of the histogram of depths
_COLOR, _PIXELS = SERIES_COLORS[0], "0.7"
_SHOWN = 1e-3  # of the largest share: bins below it are outside the frame of an example


def dpm_target_figure(config: RunConfig, histogram: Histogram, depths: list[float]) -> ReportFigure:
    """The figure of a config, with the target at `depths` in m."""
    return ReportFigure("dpm-target", "", dpm_target_data(config, histogram, depths), draw_dpm_target)


def dpm_target_data(config: RunConfig, histogram: Histogram, depths: list[float]) -> pd.DataFrame:
    """Compute the columns panel, depth, x, y, low, high.

    mean      y is the mean of the target of depth x, low and high are a standard deviation away
    pixels    y is the share of pixels whose depth is around x
    target    y is the share of the bin at x in the target of `depth`
    """
    (found, count), (low, high), centers = histogram, config.data.depth_range, bins_of(config)[1]
    x = np.linspace(low, high, N_DEPTHS)
    target = target_of(x, config)
    mean = target @ centers
    std = np.sqrt(np.clip(target @ centers**2 - mean**2, 0, None))
    shares, edges = np.histogram(found, N_BARS, (low, high), weights=count / count.sum())
    parts = [
        pd.DataFrame({"panel": "mean", "x": x, "y": mean, "low": mean - std, "high": mean + std}),
        pd.DataFrame({"panel": "pixels", "x": (edges[:-1] + edges[1:]) / 2, "y": shares}),
    ]
    for depth, row in zip(depths, target_of(np.array(depths), config), strict=True):
        parts.append(pd.DataFrame({"panel": "target", "depth": depth, "x": centers, "y": row}))
    return pd.concat(parts, ignore_index=True).reindex(columns=["panel", "depth", "x", "y", "low", "high"])


def draw_dpm_target(data: pd.DataFrame) -> Figure:
    """Draw the mean above the depths of the data at the left, and a panel for each example at the right."""
    examples = [(float(str(depth)), part) for depth, part in data[data["panel"] == "target"].groupby("depth")]
    figure = Figure(figsize=(PAGE_WIDTH, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 0.9)).flat
    above, below = left.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    _draw_mean(above, data[data["panel"] == "mean"])
    _draw_pixels(below, data[data["panel"] == "pixels"])
    for axes, (depth, part) in zip(right.subplots(len(examples), 1, squeeze=False).flat, examples, strict=True):
        _draw_example(axes, depth, part)
        axes.set_ylabel("share of a bin")
    axes.set_xlabel("center of the bin, m")
    return figure


def _draw_mean(axes: Axes, curve: pd.DataFrame) -> None:
    ends = curve["x"].min(), curve["x"].max()
    axes.plot(ends, ends, color=GRAY, linewidth=0.8, label="the teacher's depth")
    axes.fill_between(curve["x"], curve["low"], curve["high"], color=_COLOR, alpha=0.15, linewidth=0, label="± std")
    axes.plot(curve["x"], curve["y"], color=_COLOR, label="mean of the target")
    axes.set(ylabel="mean of the target, m", xlim=ends, ylim=(0, ends[1]))
    axes.legend(loc="upper left")


def _draw_pixels(axes: Axes, pixels: pd.DataFrame) -> None:
    axes.bar(pixels["x"], 100 * pixels["y"], width=pixels["x"].diff().iloc[1], color=_PIXELS)
    axes.set(ylabel="pixels, %", xlabel="teacher's depth, m")


def _draw_example(axes: Axes, depth: float, part: pd.DataFrame) -> None:
    shown = part[part["y"] >= _SHOWN * part["y"].max()]
    mean = float((part["x"] * part["y"]).sum())
    low, high = min(shown["x"].min(), depth, mean), max(shown["x"].max(), depth, mean)
    margin = 0.06 * (high - low) + 0.5 * part["x"].diff().min()
    axes.vlines(part["x"], 0, part["y"], color=_COLOR, linewidth=1.2)
    axes.plot(part["x"], part["y"], "o", color=_COLOR, markersize=2.5)
    axes.axvline(depth, color=GRAY, linewidth=0.8)
    axes.axvline(mean, color=SERIES_COLORS[1], linewidth=1, linestyle="--")
    axes.set(xlim=(low - margin, high + margin), ylim=(0, None))
    axes.set_title(f"teacher {depth:.2f} m (gray), mean {mean:.2f} m (dashed)", loc="left")
