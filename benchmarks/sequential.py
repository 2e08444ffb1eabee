"""Measure errors, power and seeds of studies whose seeds are added until rows are decided, against a fixed number of seeds.

    python benchmarks/sequential.py [--studies 4000]

A study has ROWS rows and a Baseline. An effect is in standard deviations of the difference between a row and its Baseline.
Prints the Markdown tables of the page beside this script, and writes no files.
"""

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd

from ablations.planning.seeds import SeedsConfig
from ablations.planning.sequential import look_at_rows
from reports.render.markdown import markdown_table
from reports.render.text_table import TextTable
from reports.tables.seed_statistics import holm, sign_flip_p

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
SHAPES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.standard_exponential(shape) - 1,
    "heavy-tailed": lambda rng, shape: rng.standard_t(3, shape) / 3**0.5,
}
EFFECTS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)
ROWS, FIXED = 8, 11
RULES = {"3 to 12": (3, 12), "3 to 14": (3, 14)}


def made_differences(rng: np.random.Generator, draw: Draw, effects: np.ndarray, n: int) -> np.ndarray:
    """Row - Baseline, [rows, seeds]; the rows share their Baseline."""
    return (draw(rng, (len(effects), n)) - draw(rng, (1, n))) / 2**0.5 + effects[:, None]


def fixed(differences: np.ndarray) -> tuple[np.ndarray, int]:
    """Which rows are called different with FIXED seeds, and the number of runs."""
    return holm(sign_flip_p(differences[:, :FIXED])) < 0.05, FIXED * (ROWS + 1)


def sequential(differences: np.ndarray, first: int, last: int) -> tuple[np.ndarray, int]:
    """Which rows are called different with seeds until decided, and the number of runs."""
    config = SeedsConfig(until="decided", min=first, max=last)
    tests = look_at_rows({str(row): values[:last].tolist() for row, values in enumerate(differences)}, config)
    found = [tests[str(row)] for row in range(len(differences))]
    n_seeds = [test.n_seeds for test in found]
    return np.array([test.state == "different" for test in found]), sum(n_seeds) + max(n_seeds)


def simulate(shape: str, effects: tuple[float, ...], studies: int) -> pd.DataFrame:
    """One row per rule: any wrong decision, the share of decided rows by effect, and the runs."""
    rng = np.random.default_rng(len(shape) * 100 + int(10 * sum(effects)))
    rules = {f"{FIXED} fixed": fixed} | {
        name: lambda differences, ends=ends: sequential(differences, *ends) for name, ends in RULES.items()
    }
    wrong, runs = dict.fromkeys(rules, 0), dict.fromkeys(rules, 0)
    decided = {name: dict.fromkeys(effects, 0) for name in rules}
    counts = dict.fromkeys(effects, 0)
    for _ in range(studies):
        drawn = rng.choice(effects, ROWS)
        differences = made_differences(rng, SHAPES[shape], drawn, max(last for _, last in RULES.values()))
        for effect in drawn:
            counts[float(effect)] += 1
        for name, rule in rules.items():
            different, n_runs = rule(differences)
            wrong[name] += bool(different[drawn == 0].any())
            runs[name] += n_runs
            for effect in effects:
                decided[name][effect] += int(different[drawn == effect].sum())
    return pd.DataFrame(
        {"values": shape, "seeds": name, "any wrong": wrong[name] / studies}
        | {f"{effect:g} sd": decided[name][effect] / max(counts[effect], 1) for effect in effects}
        | {"runs": f"{runs[name] / studies:.1f}", "saved": 1 - runs[name] / runs[f"{FIXED} fixed"]}
        for name in rules
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=4000, help="simulated studies per row")
    options = parser.parse_args()
    for title, effects in (("No row differs", (0.0,)), ("Rows of mixed effects", EFFECTS)):
        frame = pd.concat([simulate(shape, effects, options.studies) for shape in SHAPES])
        table = TextTable(list(frame.columns), frame.map(lambda v: v if isinstance(v, str) else f"{v:.3f}").values.tolist())
        print(f"\n### {title}\n\n{markdown_table(table)}", flush=True)


if __name__ == "__main__":
    main()
