"""Notes under tables: how the numbers were computed, and what they cannot show."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from reports.loading.schema import MAIN_METRIC, METRIC_LABELS, METRICS
from reports.pages.table_layouts import objective_metric
from reports.tables.aggregates import Numbers
from reports.tables.formatting import ROW_LABELS, cell_name, label_text
from reports.tables.image_bootstrap import FEWEST_GROUPS, RESAMPLES, interval_coverage
from reports.tables.ranks import BlockRanks, protocols_of
from reports.tables.seed_statistics import ALPHA, seeds_needed, smallest_p
from reports.tables.table import Table
from tiekd.config.specs import DATASETS

_LABEL = METRIC_LABELS[MAIN_METRIC]
_MAIN = METRICS.index(MAIN_METRIC)


def table_notes(table: Table, whole: bool = True) -> list[str]:
    """Notes for a study's main table, or for the trials of a search.

    whole: the table has every label as a column, and the test against the baseline.
    """
    lines = [_protocol(table), *image_count_notes(table), _seeds()]
    if table.study.is_search:
        label = METRIC_LABELS[objective_metric(table)]
        ranking = (
            f"Each row is one trial, sorted by {label}; trials without a result come last. Nothing is bold: a search samples"
            " near good values, so comparing its trials is not a fair test."
        )
        return [*_shared(table), *lines, *_floor(table), ranking, *_constraints(table), *_states(table)]
    lines += _floor(table)
    lines = [*lines, *_published(table), *baseline_notes(table)] if whole else [*_shared(table), *lines, *_published(table)]
    return [*lines, *_bold(table, table.blocks, "the students of one backbone"), *_states(table)]


def baseline_notes(table: Table) -> list[str]:
    """Notes for differences from the baseline."""
    if table.study.sequential:
        return [*sequential_notes(table), *_images(table)]
    difference = f"{_LABEL} − Baseline (same data, backbone, protocol and shared settings)"
    return [*_test(table, table.numbers, difference), *_images(table), *_epochs(table)]


def _epochs(table: Table) -> list[str]:
    """That rows and their baselines were trained for different numbers of epochs, if they were; see `Baselines`."""
    pairs = [(cell, table.cells[place]) for cell, place in zip(table.cells, table.baselines, strict=True) if place is not None]
    if all(cell.settings["optim.epochs"] == baseline.settings["optim.epochs"] for cell, baseline in pairs):
        return []
    return ["A Baseline of few labels and its rows have different optim.epochs, since its epochs have fewer frames."]


def sequential_notes(table: Table) -> list[str]:
    """Notes for the tests of a study with seeds until decided."""
    rule = table.study.sequential["rule"]
    label = METRIC_LABELS[rule["metric"]]
    return [
        f"Seeds were added until rows were decided: {label} − Baseline, paired by seed, was tested after"
        f" each seed from {rule['min']} to {rule['max']}. p counts all looks (Student's t, calibrated by simulation) and is"
        f" corrected over the rows by Holm's method: a wrong decision anywhere has probability {rule['alpha']:g} at most. The"
        f" interval holds for all looks and rows together. A hopeless row ended early without a decision. Tests with a fixed"
        " number of seeds do not apply to such a study and are left out."
    ]


def one_factor_notes(table: Table, compared: Numbers, blocks: Sequence[Sequence[int]]) -> list[str]:
    """Notes for a table of one factor at a time."""
    return [
        "Each block varies one factor of the study's base; all other settings equal the base.",
        *_test(table, compared, f"{_LABEL} − base"),
        *_bold(table, blocks, "a block"),
    ]


def grid_notes(table: Table, blocks: Sequence[Sequence[int]], block: str) -> list[str]:
    """Notes for a grid."""
    return [
        f"{_LABEL}, mean ± standard deviation over seeds (number of seeds in parentheses). Blank entries are not in the study.",
        *_bold(table, blocks, block),
    ]


def rank_notes(table: Table, blocks: Sequence[BlockRanks]) -> list[str]:
    """Notes for the ranks over protocols: what they are, who wins where, and which runs lack protocols."""
    names = protocols_of(table)
    lines = [
        f"Rank by {_LABEL}, mean over seeds, among the students of one backbone; 1 is best. In parentheses: of the seeds that"
        f" all rows have, those that give the row this rank; and the share of {RESAMPLES} draws of the drives or scenes of the"
        f" test images that do, with the same trained networks (from {FEWEST_GROUPS} drives or scenes on)."
    ]
    for block in blocks:
        firsts = Counter(index for index, ranks in zip(block.cells, block.rank, strict=True) for rank in ranks if rank == 1)
        winners = "; ".join(f"{cell_name(table, table.cells[index])} under {n}" for index, n in firsts.most_common())
        same = (block.rank == block.rank[:, :1]).all()
        order = "The order is the same under all" if same else "The order depends on the protocol"
        lines.append(f"{order}{'' if same else ';'} {len(names)} protocols. Rank 1: {winners}.")
    scored = Counter(table.also.drop_duplicates(["run_id", "protocol"])["run_id"])
    done = {run for cell in table.cells for run in cell.done_ids.values()}
    if lacking := sorted(run for run in done if scored[run] + 1 < len(names)):
        lines.append(
            f"{len(lacking)} of {len(done)} runs were not scored under every protocol, first {lacking[0]}:"
            " `tiekd evaluate RUN --save --protocol NAME` scores a finished run."
        )
    return lines


def cost_notes() -> list[str]:
    """Notes for the cost of networks."""
    return [
        "Measured by `tiekd measure` on one device, one image of the evaluation size at a time, without flip averaging:"
        " multiply-accumulates and parameters of the whole network, median time with quartiles, and peak memory of weights"
        " and one forward pass."
    ]


def _shared(table: Table) -> Iterator[str]:
    """The labels that all rows share, which are therefore not columns."""
    if shared := [f"{name} {label_text(name, table.cells[0].labels[name])}" for name in ROW_LABELS if name in table.common]:
        yield f"All rows: {'; '.join(shared)}."


def _protocol(table: Table) -> str:
    counts = table.groups.groupby("run_id")[["n", "n_blank"]].sum()
    if counts.empty:
        return f"Protocol `{table.protocol}`; no run is done."
    return (
        f"Protocol `{table.protocol}`: a run's value is the mean over {_counts(counts['n'])} test images; images without valid"
        f" ground truth, which are left out: {_counts(counts['n_blank'])}. RMSE and Sq Rel are in metres, SILog is"
        " multiplied by 100. Higher is better for δ, lower for all other metrics."
    )


def _constraints(table: Table) -> Iterator[str]:
    """The constraints of a search, and what its table shows of trials that violate them."""
    if constraints := (table.study.document.get("search") or {}).get("constraints"):
        yield (
            f"The search asks for {', '.join(constraints)}. Infeasible trials violate that and come after the others; a student"
            " that costs too much was not trained."
        )


def image_count_notes(table: Table) -> list[str]:
    """What to know where papers on the data set evaluate on another number of images."""
    spec = DATASETS.get(table.dataset)
    counts = sorted(set(table.groups.groupby("run_id")["n"].sum()))
    return [f"**{note}.**" for count in counts if spec and (note := spec.count_note(int(count)))]


def _counts(values: pd.Series) -> str:
    """The count that all runs share, or all counts that occur."""
    return " or ".join(map(str, sorted(set(values)))) or "0"


def _seeds() -> str:
    return "Mean ± sample standard deviation (n − 1) over training seeds; a single seed has no spread (–)."


def _floor(table: Table) -> Iterator[str]:
    if table.shows_floor:
        yield (
            f"Floor: {_LABEL} with respect to the teacher of a student that reproduces the target of L_DPM exactly; – without"
            " L_DPM, or where the runs did not store it. It bounds neither a loss with other terms nor the error with respect"
            " to the ground truth."
        )


def _images(table: Table) -> Iterator[str]:
    """What the interval over images means; silent if no difference has one or could have one."""
    if all(baseline is None for baseline in table.baselines):
        return
    groups = sorted({int(n) for n in table.numbers["n_groups"][:, _MAIN]} - {0})
    if groups and groups[-1] < FEWEST_GROUPS:
        yield (
            f"No interval over test images: it needs images from at least {FEWEST_GROUPS} drives or scenes, since images of one"
            f" drive are similar; these come from {' or '.join(map(str, groups))}."
        )
    elif np.isfinite(table.numbers["baseline_images_ci_low"]).any():
        skewed, normal = interval_coverage(groups[-1])
        yield (
            f"95 % over images: the range for another draw of the {groups[-1]} drives or scenes with the same trained networks"
            f" (studentized bootstrap of whole groups; with this many groups it held the true value in {skewed:.0%} of"
            f" simulated studies with strongly skewed groups and in {normal:.0%} with normal ones)."
            " It does not include the spread over seeds, and the interval over seeds does not include the one over images."
        )


def _published(table: Table) -> Iterator[str]:
    if np.isfinite(table.numbers["published"]).any():
        yield (
            "Published: the paper's single value per cell, without seeds or spread, with its own settings (24 epochs, the"
            " arithmetic of the released code); diff. is our mean − published."
        )


def _test(table: Table, numbers: Numbers, difference: str) -> Iterator[str]:
    """How differences are tested, and whether there are enough seeds for p < ALPHA."""
    tested = np.flatnonzero(np.isfinite(numbers["p_value"][:, _MAIN]))
    if not tested.size:
        return
    n = int(numbers["baseline_n_seeds"][tested, _MAIN].max())
    yield (
        f"p: two-sided exact sign-flip test of {difference}, paired by seed, with Holm's correction for the"
        f" {_plural(len(tested), 'test')} of the table. 95 % over seeds: Student's t interval of that difference, uncorrected."
    )
    needed = seeds_needed(ALPHA / len(tested))
    cannot = f"**p < {ALPHA} is out of reach with {_plural(n, 'seed')}"
    if n < (seeds_needed() or math.inf):
        yield (
            f"{cannot}**: the smallest two-sided p is 2/2^{n} = {smallest_p(n):g} before correction. A single"
            f" test needs {seeds_needed()} seeds; with Holm's correction for {_plural(len(tested), 'test')}, {_many(needed)}."
        )
    elif needed is None or n < needed:
        yield (
            f"{cannot} after Holm's correction**: the smallest two-sided p is 2/2^{n} = {smallest_p(n):g} for a single test;"
            f" the first of {len(tested)} tests needs {_many(needed)} seeds."
        )


def _bold(table: Table, blocks: Iterable[Sequence[int]], block: str) -> Iterator[str]:
    """Why rows are bold, or why none is; silent if no rows are compared."""
    blocks = [[n for n in cells if table.cells[n].n_done] for cells in blocks]
    blocks = [cells for cells in blocks if len(cells) > 1]
    if not blocks:
        return
    if table.bold == "best":
        yield f"Bold: in {block}, the best mean of each metric. It is not a test: `--bold tested` marks what the seeds support."
    if table.bold != "tested":
        return
    if any(table.best_of(cells, MAIN_METRIC) for cells in blocks):
        yield (
            f"Bold: in {block}, the best mean and all rows that are not significantly worse (sign-flip tests paired by seed,"
            " Holm's correction over all pairs)."
        )
        return
    smallest = min(blocks, key=len)
    seeds = min(table.cells[n].n_done for n in smallest)
    needed = seeds_needed(ALPHA / math.comb(len(smallest), 2))
    if needed is None or seeds < needed:
        yield (
            f"**Nothing is bold**: {_plural(seeds, 'seed')} cannot show which of {len(smallest)} rows is best; that"
            f" needs {_many(needed)} per row."
        )
    else:
        yield f"**Nothing is bold**: no row of {block} is significantly worse than the best."


def _states(table: Table) -> Iterator[str]:
    if any(cell.state != "done" for cell in table.cells):
        yield "Means include finished runs only; State lists the others."


def _many(needed: int | None) -> str:
    return "too many to enumerate" if needed is None else str(needed)


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
