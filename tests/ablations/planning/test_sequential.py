"""Seeds until rows are decided: the p value over all looks, the rounds, and the cells that results ask for."""

import math

import numpy as np
import pytest
from scipy import stats

from ablations.planning.cells import expand_cells
from ablations.planning.plan import make_plan
from ablations.planning.seeds import SeedsConfig
from ablations.planning.sequential import adjusted_p, critical_value, look_at_rows, look_weights, promises_gain
from ablations.planning.sequential_plan import sequential_plan
from ablations.planning.study import load_study
from ablations.prepared_study import prepare_study
from tiekd.errors import UserError
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

RULE = SeedsConfig(until="decided", min=3, max=8)
VARIANTS = {
    "variant": {
        "baseline": {"loss.name": "si", "loss.target": "ground_truth"},
        "mse": {"loss.name": "mse"},
        "si": {"loss.name": "si"},
    }
}


def smallest_ratio(values: np.ndarray, first: int, last: int) -> np.ndarray:
    """The smallest p of SciPy's paired t test over its weight, over all looks: values [..., seeds] to [...]."""
    weights = look_weights(first, last)
    ratios = [stats.ttest_1samp(values[..., :n], 0, axis=-1).pvalue / weights[n] for n in range(first, last + 1)]
    return np.min(ratios, axis=0)


def test_weights_are_a_distribution_that_favors_late_looks():
    weights = look_weights(3, 12)
    assert sum(weights.values()) == pytest.approx(1)
    assert list(weights) == list(range(3, 13))
    assert list(weights.values()) == sorted(weights.values())


def test_without_a_difference_p_is_uniform():
    draws = np.random.default_rng(5).standard_normal((2000, 8))
    p = [adjusted_p(ratio, 3, 8) for ratio in smallest_ratio(draws, 3, 8)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert adjusted_p(critical_value(0.05, 3, 8), 3, 8) == pytest.approx(0.05, abs=1e-4)


def test_one_row_at_its_last_look_has_the_textbooks_interval():
    values = np.random.default_rng(1).standard_normal(8) + 0.9
    (test,) = look_at_rows({"a": values.tolist()}, SeedsConfig(until="decided", min=3, max=8, alpha=0.001)).values()
    assert (test.state, test.n_seeds) == ("undecided", 8)
    level = critical_value(0.001, 3, 8) * look_weights(3, 8)[8]
    low, high = stats.t.interval(1 - level, 7, values.mean(), values.std(ddof=1) / math.sqrt(8))
    assert (test.difference, test.low, test.high) == pytest.approx((values.mean(), low, high))
    assert test.p == pytest.approx(adjusted_p(float(smallest_ratio(values, 3, 8)), 3, 8))


def test_rows_end_when_they_are_decided_hopeless_or_lack_a_result():
    draws = np.random.default_rng(2).standard_normal((4, 8))
    differences = {
        "clear": (draws[0] + 20).tolist(),
        "none": [0.1, -0.1, 0.05, -0.05, 0.1, -0.1, 0.05, -0.05],
        "lost": [0.3, math.nan, 0.2, 0.1],
        "slow": (draws[3] * 0.8 + 0.9).tolist(),
    }
    tests = look_at_rows(differences, RULE)
    assert {row: test.state for row, test in tests.items()} == {
        "clear": "different",
        "none": "hopeless",
        "lost": "no result",
        "slow": tests["slow"].state,
    }
    assert tests["clear"].n_seeds < 8
    assert tests["none"].n_seeds == 4
    assert tests["clear"].p < RULE.alpha
    assert 0 < tests["clear"].low < 20 < tests["clear"].high
    assert math.isnan(tests["lost"].p)


def test_all_rows_wait_for_a_look(tmp_path):
    differences = {"a": [1.0, 1.2, 0.9, 1.1], "b": [0.5, 0.7, 0.2]}
    tests = look_at_rows(differences, RULE)
    assert {row: (test.state, test.n_seeds) for row, test in tests.items()} == {"a": ("open", 4), "b": ("open", 4)}
    assert tests["b"].difference == pytest.approx(np.mean([0.5, 0.7, 0.2]))  # of the last look that all had
    fewer = look_at_rows({"a": [1.0, 1.2], "b": []}, RULE)
    assert {test.n_seeds for test in fewer.values()} == {3}
    assert all(math.isnan(test.p) for test in fewer.values())


@pytest.fixture
def decided(study_file, tiny):
    return study_file(base=tiny, factors=VARIANTS, seeds={"until": "decided", "max": 5})


def write_results(store: RunStore, cells, value) -> None:
    """End the runs of cells with made-up values of abs_rel."""
    for planned in cells:
        record = store.run(planned.run_id)
        record.write_config(planned.cell.config)
        metrics = dict.fromkeys(("abs_rel", "rmse", "delta1"), value(planned.cell))
        record.write_json("summary.json", {"run_id": planned.run_id, "protocol": "none", "n_images": 1, "metrics": metrics})
        record.write_status(Status("done"))


def test_results_ask_for_more_seeds_of_the_rows_that_are_open_and_of_their_baseline(decided, tmp_path):
    store = RunStore(tmp_path / "store")
    prepared = prepare_study(decided, store.uri)
    assert [str(c.cell) for c in prepared.plan.cells] == [
        f"variant={variant}, seed={seed}" for variant in VARIANTS["variant"] for seed in range(3)
    ]
    draw = np.random.default_rng(0)
    noise = {}

    def value(cell) -> float:
        """si is clearly worse than the Baseline, mse neither better nor worse."""
        variant, seed = cell.factors["variant"], cell.config.seed
        noise.setdefault((variant, seed), draw.standard_normal())
        return 0.5 + 1e-4 * noise[variant, seed] + (1.0 if variant == "si" else 0.0)

    rounds = []
    while todo := prepared.plan.to_compute:
        rounds.append(sorted({(c.cell.factors["variant"], c.cell.config.seed) for c in todo}))
        write_results(store, todo, value)
        prepared = prepared.refreshed()
    assert rounds[1] == [("baseline", 3), ("mse", 3)]
    states = {row: test.state for row, test in prepared.sequential.tests.items()}
    assert states['{"variant": "si"}'] == "different"
    assert states['{"variant": "mse"}'] in ("hopeless", "undecided")
    n_seeds = prepared.sequential.n_seeds
    assert n_seeds['{"variant": "baseline"}'] == max(n_seeds.values())
    record = prepared.sequential.to_dict()
    assert record["rule"]["max"] == 5
    assert [len(row["run_ids"]) == row["n_seeds"] for row in record["rows"]] == [True, True]
    # A later launch comes to the same plan from the store alone.
    again = prepare_study(decided, store.uri)
    assert [c.run_id for c in again.plan.cells] == [c.run_id for c in prepared.plan.cells]
    assert again.plan.to_compute == []


def test_only_gains_are_promising():
    """At the first look any gain is; later, less than at the last look would decide ends a row."""
    assert promises_gain([0.1, -0.02, 0.03], 3, 8)
    assert not promises_gain([-0.1, 0.02, -0.03], 3, 8)
    assert not promises_gain([0.1, -0.1, 0.1, -0.1, 0.1, -0.09], 3, 8)
    assert promises_gain([0.1, 0.11, 0.1, 0.12, 0.1, 0.1], 3, 8)
    ends = [row for row in ([0.3, -0.2, 0.1, 0.0], [0.1, 0.2, 0.1, 0.3]) if not promises_gain(row, 3, 4)]
    assert ends == [[0.3, -0.2, 0.1, 0.0]]
    assert look_at_rows({"row": ends[0] + [0.0] * 4}, RULE)["row"].state == "hopeless"  # by the rule of a study


def test_a_row_needs_one_baseline(study_file, tiny, tmp_path):
    path = study_file(base=tiny, factors={"loss.name": ["mse", "ssim"]}, seeds={"until": "decided"})
    study = load_study(path)
    cells = expand_cells(study)
    store = RunStore(tmp_path / "store")
    with pytest.raises(UserError, match="needs one Baseline of tiny on synthetic-outdoor in the study, got 0"):
        sequential_plan(study, make_plan(cells, store).cells, store)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ({"until": "decided", "min": 5, "max": 5}, "min must be below max"),
        ({"until": "bored"}, "until: .*'decided'.* got 'bored'"),
        ({"until": "decided", "metric": "rsme"}, "did you mean rmse"),
        ([], "seeds: needs at least one"),
    ],
)
def test_invalid_seeds_are_refused_in_one_line(study_file, tiny, seeds, message):
    with pytest.raises(UserError, match=message) as error:
        load_study(study_file(base=tiny, seeds=seeds))
    assert "\n" not in str(error.value)


def test_until_decided_keeps_the_rule_of_the_study(study_file, tiny):
    path = study_file(base=tiny, seeds=[0, 1])
    assert load_study(path, until_decided=True).seeds == SeedsConfig(until="decided")
    assert load_study(path, seeds=6, until_decided=True).seeds == SeedsConfig(until="decided", max=6)
    path = study_file(base=tiny, seeds={"until": "decided", "metric": "rmse"})
    assert load_study(path, seeds=9, until_decided=True).seeds == SeedsConfig(until="decided", metric="rmse", max=9)
