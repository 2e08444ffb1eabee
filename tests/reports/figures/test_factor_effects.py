"""Effects are differences paired by seed between cells that agree in all other factors."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.made_store import BASE, fill, metrics_of

from reports.figures.factor_effects import BASE_LEVEL, draw_factor_effects, effects_by_level
from reports.loading.collect import collect
from reports.tables.table import build_tables
from tiekd.store.run_status import Status


def effects_of(store, cells, seeds=3, lost=None, **study):
    fill(store, cells, seeds, {"name": "study", "base": BASE, **study}, lost)
    (table,) = build_tables(collect(store))
    return effects_by_level(table)


def value(cell, seed):
    return metrics_of(cell, seed)["abs_rel"]


def test_level_is_compared_with_the_base_at_every_setting_of_the_other_factors(store):
    # temperature and sigma of the cells: (0.5, 0.1) (0.5, 0.2) (1.0, 0.1) (1.0, 0.2); base: (1, 0.5)
    grid = [{"loss.temperature": t, "loss.sigma": s} for t in (0.5, 1.0) for s in (0.1, 0.2)]
    found = effects_of(store, grid)
    part = found[found["factor"] == "loss.temperature"]
    assert part[["base", "level"]].drop_duplicates().values.tolist() == [["1", "0.5"]]
    expected = [((value(0, s) - value(2, s)) + (value(1, s) - value(3, s))) / 2 for s in range(3)]
    assert part["difference"].tolist() == pytest.approx(expected)
    assert part["n_pairs"].tolist() == [2, 2, 2]
    assert found.loc[found["factor"] == "loss.sigma", "base"].unique().tolist() == ["0.1"]


def test_interval_is_students_t_over_seeds(store, monkeypatch):
    noise = np.random.default_rng(0).normal(size=(2, 4))
    monkeypatch.setattr(
        "support.made_store.metrics_of", lambda cell, seed: dict.fromkeys(metrics_of(0, 0), 1 + noise[cell, seed])
    )
    found = effects_of(store, [{"loss.temperature": 1.0}, {"loss.temperature": 2.0}], seeds=4)
    differences = noise[1] - noise[0]
    expected = stats.ttest_1samp(differences, 0).confidence_interval()
    assert found["difference"].tolist() == pytest.approx(differences.tolist())
    assert (found["mean"][0], found["ci_low"][0], found["ci_high"][0]) == pytest.approx((differences.mean(), *expected))


def test_seeds_without_a_result_form_no_pair(store):
    cells = [{"loss.temperature": t} for t in (1.0, 2.0, 3.0)]
    lost = {(1, 0): Status("failed", "lost"), **{(2, seed): Status("diverged", "lost") for seed in range(3)}}
    found = effects_of(store, cells, lost=lost)
    assert found[["level", "seed"]].values.tolist() == [["2", 1], ["2", 2]]  # level 3 has no result at all


def test_one_at_a_time_compares_each_level_with_the_base_cell(store):
    cells = [{}, {"loss.temperature": 2.0}, {"loss.alpha": 0.5}, {"loss.alpha": 0.9}]
    found = effects_of(store, cells, seeds=1, vary="one_at_a_time")
    assert found[["factor", "base", "level"]].values.tolist() == [
        ["loss.temperature", "1", "2"],
        ["loss.alpha", "0.1", "0.5"],
        ["loss.alpha", "0.1", "0.9"],
    ]
    assert found["difference"].tolist() == pytest.approx([value(cell, 0) - value(0, 0) for cell in (1, 2, 3)])
    assert found["ci_low"].isna().all()  # one seed has no interval


def with_levels(store, levels, **document):
    """Store the cells of the study as levels of named factors, and compute their effects."""
    study = store.read_study("study")
    for cell, named in zip(study["cells"], levels, strict=True):
        cell["factors"] = named
    study["study"] |= document
    store.write_study("study", study)
    (table,) = build_tables(collect(store))
    return effects_by_level(table)


def test_first_named_level_of_the_study_is_the_base(store):
    fill(store, [{"loss.name": "mse"}, {"loss.name": "ssim"}], 1, {"name": "study", "base": BASE})
    levels = {"ours": {"loss.name": "ssim"}, "theirs": {"loss.name": "mse"}}
    found = with_levels(store, [{"variant": "theirs"}, {"variant": "ours"}], factors={"variant": levels})
    assert found[["base", "level"]].values.tolist() == [["ours", "theirs"]]


def test_one_at_a_time_cell_without_a_named_level_is_the_base(store):
    fill(store, [{}, {"loss.name": "mse"}], 1, {"name": "study", "base": BASE, "vary": "one_at_a_time"})
    found = with_levels(store, [{}, {"variant": "mse"}])
    assert found[["base", "level"]].values.tolist() == [[BASE_LEVEL, "mse"]]


def test_figure_has_a_heading_per_factor_and_a_line_per_level():
    rows = [("a", "1", "2", 0, 1, 0.1, 0.15, 0.0, 0.3), ("a", "1", "2", 1, 1, 0.2, 0.15, 0.0, 0.3)]
    columns = ["factor", "base", "level", "seed", "n_pairs", "difference", "mean", "ci_low", "ci_high"]
    (axes,) = draw_factor_effects(pd.DataFrame(rows, columns=columns)).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (base: 1)", "2"]
    seeds = next(line for line in axes.lines if line.get_label() == "one seed")
    assert list(seeds.get_xdata()) == [0.1, 0.2]
