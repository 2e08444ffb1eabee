"""Measure the coverage of the report's intervals and the false alarm rate of its tests, on simulated data with known truth.

    python benchmarks/uncertainty.py [--draws 10000]

Prints Markdown tables, among them those on the page beside this script, and writes no files.
"""

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd

from reports.loading.schema import METRICS
from reports.render.markdown import markdown_table
from reports.render.text_table import TextTable
from reports.tables.image_bootstrap import cluster_interval, image_intervals, resamples
from reports.tables.seed_statistics import ALPHA, holm, rows_not_worse, sign_flip_p, summarize_seeds

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

# Mean 0 and variance 1; "skewed" is exponential, "log-normal" has sigma 1.
# A difference of two exponential values is heavy-tailed but not skewed.
SHAPES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.standard_exponential(shape) - 1,
    "log-normal": lambda rng, shape: (np.exp(rng.standard_normal(shape)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e),
    "heavy-tailed": lambda rng, shape: (rng.standard_exponential((2, *shape)) * [[[1]], [[-1]]]).sum(0) / 2**0.5,
}
MAX_IMAGES = 40  # per group
ROWS = 9  # per table, one loss per row


def coverage(low: np.ndarray, high: np.ndarray) -> float:
    """Return the share of intervals that contain 0, the true value of all data here."""
    return float(((low <= 0) & (high >= 0)).mean())


def over_seeds(rng: np.random.Generator, draws: int) -> pd.DataFrame:
    rows = []
    for n in range(2, 21):
        row = {"seeds": n}
        for shape, draw in SHAPES.items():
            summary = summarize_seeds(draw(rng, (draws, n)))
            row[shape] = coverage(summary.ci_low, summary.ci_high)
        rows.append(row)
    return pd.DataFrame(rows)


def images_of_groups(rng: np.random.Generator, draw: Draw, draws: int, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images per group [groups] and values [draws, images]; half of the variance is between groups."""
    counts = rng.integers(MAX_IMAGES // 4, MAX_IMAGES + 1, n_groups)
    group_effect = np.repeat(draw(rng, (draws, n_groups)), counts, axis=1)
    return counts, (group_effect + draw(rng, group_effect.shape)) / 2**0.5


def percentile_interval(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap groups, with the nominal percentiles."""
    draws = resamples(len(counts))
    low, high = np.quantile(sums @ draws.T / (draws @ counts), [ALPHA / 2, 1 - ALPHA / 2], axis=-1)
    return low, high


def over_groups(rng: np.random.Generator, draws: int) -> pd.DataFrame:
    rows = []
    for shape in ("normal", "skewed", "log-normal"):
        for n_groups in (5, 6, 10, 30):
            hits = []
            for part in np.array_split(np.arange(draws), max(1, draws // 200)):  # with different group sizes
                counts, values = images_of_groups(rng, SHAPES[shape], len(part), n_groups)
                sums = np.add.reduceat(values, np.cumsum(counts) - counts, axis=1)
                ends = [cluster_interval(sums, counts), percentile_interval(sums, counts)]
                ends.append(cluster_interval(values, np.ones(values.shape[1], dtype=int)))
                hits.append([coverage(*end) for end in ends])
            ours, plain, naive = np.mean(hits, axis=0)
            shares = {"groups drawn, studentized (ours)": ours, "groups drawn, percentiles": plain, "images drawn": naive}
            rows.append({"effect of a group": shape, "groups": n_groups} | shares)
    return pd.DataFrame(rows)


def paired_over_groups(rng: np.random.Generator, draws: int) -> pd.DataFrame:
    """Compare cells and baselines with equal true values on the same images: hard images are hard for both."""
    rows = []
    for n_groups in (5, 10, 30):
        counts = rng.integers(MAX_IMAGES // 4, MAX_IMAGES + 1, n_groups)
        difficulty = rng.standard_normal((draws, 1, n_groups)) * counts
        sums = difficulty + 0.3 * rng.standard_normal((draws, 2, n_groups)) * counts
        runs = [f"{kind}{number}" for number in range(draws) for kind in ("cell", "base")]
        groups = pd.DataFrame({"run_id": np.repeat(runs, n_groups), "group": np.tile(np.arange(n_groups), len(runs))})
        groups = groups.assign(n=np.tile(counts, len(runs)), **dict.fromkeys(METRICS, sums.ravel()))
        pairs = [([cell], [base]) for cell, base in zip(runs[::2], runs[1::2], strict=True)]
        intervals = image_intervals(groups, [cell for cell, _ in pairs], pairs)
        own, paired = intervals.high - intervals.low, intervals.baseline_high - intervals.baseline_low
        rows.append(
            {
                "groups": n_groups,
                "of a cell's mean": coverage(intervals.low, intervals.high),
                "of the difference": coverage(intervals.baseline_low, intervals.baseline_high),
                "width of the difference's / the mean's": np.median(paired) / np.median(own),
            }
        )
    return pd.DataFrame(rows)


def sign_flips(rng: np.random.Generator, draws: int) -> pd.DataFrame:
    rows = []
    for shape, draw in SHAPES.items():
        for n in (5, 6, 8, 10, 20):
            alarms = (sign_flip_p(draw(rng, (draws, n))) < ALPHA).mean()
            rows.append({"differences": shape, "seeds": n, "p < 0.05": alarms})
    return pd.DataFrame(rows)


def families(rng: np.random.Generator, draws: int) -> pd.DataFrame:
    """Compute the share of tables of ROWS equal rows in which any difference is called significant."""
    rows = []
    for shape in ("normal", "skewed"):
        for n in (8, 10, 12):
            values = SHAPES[shape](rng, (draws, ROWS + 1, n))
            p_values = sign_flip_p(values[:, 1:] - values[:, :1])
            chosen = values[:, 1:]
            first = np.take_along_axis(chosen, chosen.mean(-1).argmin(-1)[:, None, None], axis=1)
            against_best = sign_flip_p(chosen - first).min(-1) * (ROWS - 1)
            rows.append(
                {
                    "values": shape,
                    "seeds": n,
                    "against a baseline, uncorrected": (p_values < ALPHA).any(-1).mean(),
                    "Holm": np.mean([(holm(p) < ALPHA).any() for p in p_values]),
                    "against the best, Holm over those tests": (against_best < ALPHA).mean(),
                    "Holm over all pairs (bold)": np.mean([rows_not_worse(block, higher=False).any() for block in chosen]),
                }
            )
    return pd.DataFrame(rows)


def bold(rng: np.random.Generator, draws: int) -> pd.DataFrame:
    """Mark the best rows of blocks in which one row is better by `gap` standard deviations over seeds."""
    rows = []
    for gap in (0.5, 1.0, 2.0, 4.0):
        for n in (10, 11, 13):
            values = rng.standard_normal((draws, ROWS, n)) - np.where(np.arange(ROWS) == 0, gap, 0)[:, None]
            marked = np.array([rows_not_worse(block, higher=False) for block in values])
            some = marked.any(-1)
            shares = {"any is bold": some.mean(), "the better row is": marked[:, 0].mean()}
            rows.append({"gap": f"{gap:g}", "seeds": n} | shares | {"it alone": (marked[:, 0] & (marked.sum(-1) == 1)).mean()})
    return pd.DataFrame(rows)


TABLES = {
    "Intervals of the mean over seeds": over_seeds,
    "Intervals of the mean over images of correlated groups": over_groups,
    "Intervals over the same images of a cell and its baseline": paired_over_groups,
    "Sign-flip test, no true difference": sign_flips,
    f"Tables of {ROWS} rows, no true difference": families,
    f"Blocks of {ROWS} rows, one truly better": bold,
}


def _text(value: object) -> str:
    return str(value) if not isinstance(value, float) else "–" if np.isnan(value) else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000, help="simulated data sets per row")
    options = parser.parse_args()
    for number, (title, simulate) in enumerate(TABLES.items()):
        frame = simulate(np.random.default_rng(number), options.draws)
        table = TextTable(list(frame.columns), frame.map(_text).values.tolist())
        print(f"\n### {title}\n\n{markdown_table(table)}", flush=True)


if __name__ == "__main__":
    main()
