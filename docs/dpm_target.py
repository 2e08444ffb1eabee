"""Draw docs/dpm-target.svg: the mean of L_DPM's target against the teacher's depth on NYU.

python docs/dpm_target.py
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from reports.figures.style import COLUMN_WIDTH, GRAY, RC_PARAMS, SERIES_COLORS
from tiekd.config import build
from tiekd.distill.target_floor import mean_of_target

OUT = Path(__file__).with_name("dpm-target.svg")
TARGETS = {"sigma 0.5 m": (0.5, 1.0), "sigma 0.5 m, temperature 0.1": (0.5, 0.1), "sigma 0.15 m": (0.15, 1.0)}


def draw() -> Figure:
    """The mean of three targets for teacher's depths from 0.1 to 10 m."""
    depth = np.linspace(0.1, 10, 400)
    figure = Figure(figsize=(COLUMN_WIDTH, COLUMN_WIDTH), layout="constrained")
    axes = figure.subplots()
    axes.plot(depth, depth, color=GRAY, linewidth=0.8, label="the teacher's depth")
    for color, (name, (sigma, temperature)) in zip(SERIES_COLORS, TARGETS.items(), strict=False):
        loss = {"name": "l_dpm", "sigma": sigma, "temperature": temperature}
        config = build({"data": {"dataset": "nyu"}, "teacher": {"name": "any", "maps": "any"}, "loss": loss})
        axes.plot(depth, mean_of_target(depth, config), color=color, label=name)
    axes.set(xlabel="teacher's depth, m", ylabel="mean of the target, m", xlim=(0, 10), ylim=(0, 10), aspect="equal")
    axes.legend()
    return figure


if __name__ == "__main__":
    with mpl.rc_context(RC_PARAMS):
        draw().savefig(OUT, metadata={"Date": None})
