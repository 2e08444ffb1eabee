"""Grids of two factors in colour and in numbers."""

import pytest
from support.made_store import fill, metrics_of

from reports.figures.figures import pictures
from reports.figures.heatmap import draw_heatmap, fits, means_by_grid
from reports.loading.collect import collect
from reports.tables.factor_views import numeric_grids
from reports.tables.table import build_tables
from tiekd.store.run_status import Status

GRID = [{"loss.temperature": t, "bins.n_bins": n} for t in (0.5, 1.0) for n in (64, 128, 256)]


def table_of(store, cells, lost=None):
    fill(store, cells, 2, {"name": "grid"}, lost)
    (table,) = build_tables(collect(store))
    return table


def test_each_place_holds_its_cells_mean_or_its_state(store):
    table = table_of(store, GRID, {(5, seed): Status("diverged", "lost") for seed in range(2)})
    data = means_by_grid(table, numeric_grids(table)).set_index(["row", "column"])
    assert len(data) == 6
    assert data.loc[(1.0, 64), "mean"] == pytest.approx((metrics_of(3, 0)["abs_rel"] + metrics_of(3, 1)["abs_rel"]) / 2)
    assert data.loc[(1.0, 64), ["n_seeds", "state"]].tolist() == [2, "done"]
    assert data.loc[(1.0, 256), ["n_seeds", "state"]].tolist() == [0, "diverged"]


def test_the_figure_writes_every_number_and_what_has_none(store):
    table = table_of(store, GRID, {(5, seed): Status("diverged", "lost") for seed in range(2)})
    figure = draw_heatmap(means_by_grid(table, numeric_grids(table)))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sum("±" in text for text in texts) == 5
    assert "diverged" in texts


def test_a_study_of_a_grid_gets_the_figure_and_one_at_a_time_none(store):
    table_of(store, GRID)
    one_at_a_time = [{}, {"loss.temperature": 0.5}, {"bins.n_bins": 64}]
    fill(store, one_at_a_time, 2, {"name": "single", "vary": "one_at_a_time"})
    collected = collect(store)
    drawn = {t.study.name: {p.name for p in pictures(t, collected, t.study.name)} for t in build_tables(collected)}
    assert "grid-loss-temperature-bins-n_bins" in drawn["grid"]
    assert not any("n_bins" in name and "temperature" in name for name in drawn["single"])


def test_a_grid_too_large_to_read_is_left_out(store, monkeypatch):
    table = table_of(store, GRID)
    assert [fits(grid) for grid in numeric_grids(table)] == [True]
    monkeypatch.setattr("reports.figures.heatmap.MOST_COLUMNS", 2)
    assert [fits(grid) for grid in numeric_grids(table)] == [False]
