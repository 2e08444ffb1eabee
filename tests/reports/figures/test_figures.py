"""Figures are drawn, and the data beside them are the runs' own numbers."""

from dataclasses import replace

import matplotlib.image
import pandas as pd
import pytest
from support.made_store import EPOCHS, fill, metrics_of

from reports.figures.figures import MOST_CELLS, MOST_CURVES, pictures, save
from reports.figures.sensitivity import seeds_by_factor
from reports.figures.style import PER_PANEL
from reports.loading.collect import collect
from reports.tables.table import build_tables


@pytest.fixture(scope="module")
def drawn(table, collected, tmp_path_factory):
    """Name -> (PNG, SVG, CSV) of every figure of the made study."""
    folder = tmp_path_factory.mktemp("figures")
    return {picture.name: save(picture, folder) for picture in pictures(table, collected, "demo")}


def test_every_figure_is_there_and_not_blank(drawn):
    assert set(drawn) == {"demo-curves", "demo-seeds", "demo-effects", "demo-loss-temperature"}
    for png, svg, _ in drawn.values():
        image = matplotlib.image.imread(png)
        assert min(image.shape[:2]) > 300
        assert image[..., :3].std() > 0.01
        assert svg.read_text().rstrip().endswith("</svg>")


def test_seed_data_are_the_runs_numbers_and_losses_have_none(drawn):
    data = pd.read_csv(drawn["demo-seeds"][2])
    assert len(data) == 18
    assert data.loc[data["state"] != "done", "abs_rel"].isna().all()
    row = data[(data["cell"] == "adabins · Res-KD · SSIM, SI · MobileNetV2") & (data["seed"] == 1)].iloc[0]
    assert row["abs_rel"] == pytest.approx(metrics_of(3, 1)["abs_rel"])
    assert row["published"] == 0.0701


def test_curve_data_are_mean_and_range_over_seeds(drawn):
    data = pd.read_csv(drawn["demo-curves"][2])
    assert sorted(data["epoch"].unique()) == [2, EPOCHS]  # the first epoch was not validated
    row = data[(data["series"] == "Res-KD · SSIM, SI") & (data["epoch"] == EPOCHS)].iloc[0]
    low, high = metrics_of(3, 0)["abs_rel"], metrics_of(3, 1)["abs_rel"]
    assert (row["low"], row["high"], row["mean"], row["n_seeds"]) == pytest.approx((low, high, (low + high) / 2, 2))


def test_sensitivity_data_follow_the_factor_all_else_equal(drawn):
    data = pd.read_csv(drawn["demo-loss-temperature"][2])
    assert data["series"].unique().tolist() == ["TIE-KD · L_DPM, L_DEPTH"]
    assert data["value"].tolist() == [0.5, 0.5, 1, 1, 2, 2]
    assert data["abs_rel"].tolist() == pytest.approx([metrics_of(c, s)["abs_rel"] for c in (5, 6, 7) for s in (0, 1)])


def test_series_beyond_a_panel_go_on_in_the_next(store, tmp_path):
    grid = [{"loss.temperature": t, "loss.sigma": 0.1 * (s + 1)} for t in (1.0, 10.0) for s in range(PER_PANEL + 2)]
    fill(store, grid, 1, {"name": "grid"})
    collected = collect(store)
    (table,) = build_tables(collected)
    by_name = {picture.name: picture for picture in pictures(table, collected, "grid")}
    picture = by_name["grid-loss-temperature"]
    axes = [a for a in picture.draw(picture.data).axes if a.get_visible()]
    assert [len(a.get_legend().get_texts()) for a in axes] == [6, 5]
    assert axes[0].get_xscale() == "log"


def test_of_very_many_cells_the_best_are_drawn_and_the_caption_says_so(table, collected):
    many = replace(table, cells=table.cells * (MOST_CELLS // len(table.cells) + 2))
    by_name = {picture.name: picture for picture in pictures(many, collected, "many")}
    curves, seeds = by_name["many-curves"], by_name["many-seeds"]
    assert len(seeds.data["cell"].unique()) < len(table.cells)  # the worst cells are left out
    assert f"The best {MOST_CURVES} of {len(many.cells)} cells" in curves.caption


def test_a_search_is_drawn_along_its_factors_as_points(store):
    drawn = ((0.5, 0.1, "log"), (1.5, 0.4, "uniform"), (2.0, 0.2, "log"))
    points = [{"loss.temperature": t, "loss.sigma": s, "bins.spacing": b} for t, s, b in drawn]
    fill(store, points, 1, {"name": "hunt", "kind": "search"})
    collected = collect(store)
    (table,) = build_tables(collected)
    (picture,) = pictures(table, collected, "hunt")
    assert picture.name == "hunt-trials"
    assert picture.data.groupby("factor")["value"].apply(list).to_dict() == {
        "loss.temperature": [0.5, 1.5, 2.0],
        "loss.sigma": [0.1, 0.4, 0.2],
        "bins.spacing": ["log", "uniform", "log"],
    }
    panels = picture.draw(picture.data).axes
    assert [axes.get_title("left") for axes in panels] == ["loss.temperature", "loss.sigma (m)", "bins.spacing"]
    assert [label.get_text() for label in panels[2].get_xticklabels()] == ["log", "uniform"]


def test_a_searchs_importance_is_what_it_found(store, tmp_path):
    fill(store, [{"loss.temperature": t} for t in (0.5, 1.5)], 1, {"name": "hunt", "kind": "search"})
    store.write_json("studies/hunt/findings.json", {"importance": {"loss.sigma": 0.2, "loss.temperature": 0.8}})
    collected = collect(store)
    (table,) = build_tables(collected)
    importance = next(iter(pictures(table, collected, "hunt")))
    _, _, csv = save(importance, tmp_path)
    assert csv.read_text().splitlines() == ["parameter,share", "loss.temperature,0.8", "loss.sigma,0.2"]


def test_more_series_than_can_be_read_are_left_to_the_other_figures(store, monkeypatch):
    monkeypatch.setattr("reports.figures.sensitivity.MOST_SERIES", 2)
    grid = [{"loss.temperature": t, "loss.sigma": s} for t in (1.0, 2.0) for s in (0.1, 0.2, 0.3)]
    fill(store, grid, 1, {"name": "grid"})
    (table,) = build_tables(collect(store))
    assert seeds_by_factor(table, "loss.temperature").empty
    assert seeds_by_factor(table, "loss.sigma")["series"].nunique() == 2
