"""Grids of two factors as colors and numbers."""

import pytest
from support.made_store import fill, metrics_of

from reports.figures.figures import figures_of
from reports.figures.heatmap import draw_heatmap, fits_page, means_by_grid
from reports.loading.collect import collect
from reports.tables.factor_views import numeric_grids
from reports.tables.table import build_tables
from tiekd.store.run_status import Status

GRID = [{"loss.temperature": t, "bins.n_bins": n} for t in (0.5, 1.0) for n in (64, 128, 256)]


@pytest.fixture
def table(store):
    """A grid whose last cell has no result."""
    fill(store, GRID, 2, {"name": "grid"}, {(5, seed): Status("diverged", "lost") for seed in range(2)})
    (table,) = build_tables(collect(store))
    return table


def test_each_position_has_the_mean_or_the_state_of_its_cell(table):
    data = means_by_grid(table, numeric_grids(table)).set_index(["row", "column"])
    assert len(data) == 6
    assert data.loc[(1.0, 64), "mean"] == pytest.approx((metrics_of(3, 0)["abs_rel"] + metrics_of(3, 1)["abs_rel"]) / 2)
    assert data.loc[(1.0, 64), ["n_seeds", "state"]].tolist() == [2, "done"]
    assert data.loc[(1.0, 256), ["n_seeds", "state"]].tolist() == [0, "diverged"]


def test_figure_shows_every_number_and_the_states_without_one(table):
    figure = draw_heatmap(means_by_grid(table, numeric_grids(table)))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sum("±" in text for text in texts) == 5
    assert "diverged" in texts


def test_study_of_one_factor_at_a_time_has_no_heatmap(store):
    cells = [{}, {"loss.temperature": 0.5}, {"bins.n_bins": 64}]
    fill(store, cells, 2, {"name": "single", "vary": "one_at_a_time"})
    frames = collect(store)
    (table,) = build_tables(frames)
    assert not any("n_bins" in f.name and "temperature" in f.name for f in figures_of(table, frames, "single"))


def test_grid_that_is_too_large_to_read_is_left_out(table, monkeypatch):
    assert [fits_page(grid) for grid in numeric_grids(table)] == [True]
    monkeypatch.setattr("reports.figures.heatmap.MAX_GRID_COLUMNS", 2)
    assert [fits_page(grid) for grid in numeric_grids(table)] == [False]
