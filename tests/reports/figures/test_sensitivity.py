"""A metric against one factor, with all other factors equal."""

from itertools import pairwise

import matplotlib
import pandas as pd
import pytest
from support.made_store import fill, metrics_of

from reports.figures.sensitivity import draw_sensitivity, draw_trials, seeds_by_factor
from reports.figures.style import MAX_SERIES_PER_PANEL, RC_PARAMS
from reports.loading.collect import collect
from reports.tables.table import build_tables


def test_series_differ_only_in_the_factor(examples):
    data = examples["sensitivity"].data
    assert data["series"].unique().tolist() == ["TIE-KD · L_DPM, L_DEPTH"]
    assert data["value"].tolist() == [0.5, 0.5, 1, 1, 2, 2]
    assert data["abs_rel"].tolist() == pytest.approx([metrics_of(c, s)["abs_rel"] for c in (5, 6, 7) for s in (0, 1)])


def test_many_series_are_split_into_panels_and_decades_are_logarithmic():
    n = MAX_SERIES_PER_PANEL + 2
    rows = [("panel", f"series {s}", "loss.sigma", v, "run", 0, 0.1) for v in (1.0, 10.0) for s in range(n)]
    data = pd.DataFrame(rows, columns=["panel", "series", "factor", "value", "run_id", "seed", "abs_rel"])
    axes = [axes for axes in draw_sensitivity(data).axes if axes.get_visible()]
    assert [len(a.get_legend().get_texts()) for a in axes] == [6, 5]
    assert axes[0].get_xscale() == "log"


def test_too_many_series_are_left_out(store, monkeypatch):
    monkeypatch.setattr("reports.figures.sensitivity.MAX_SERIES", 2)
    grid = [{"loss.temperature": t, "loss.sigma": s} for t in (1.0, 2.0) for s in (0.1, 0.2, 0.3)]
    fill(store, grid, 1, {"name": "grid"})
    (table,) = build_tables(collect(store))
    assert seeds_by_factor(table, "loss.temperature").empty
    assert seeds_by_factor(table, "loss.sigma")["series"].nunique() == 2


def test_search_has_a_panel_of_points_per_parameter(examples):
    example = examples["trials"]
    done = example.figure.data[example.figure.data["state"] == "done"]
    assert done.groupby("factor")["value"].apply(list).to_dict() == {
        "loss.temperature": [0.5, 1.5, 2.0],
        "loss.sigma": [0.1, 0.4, 0.2],
        "bins.spacing": ["log", "uniform", "log"],
    }
    panels = example.drawing.axes
    assert [axes.get_title("left") for axes in panels] == ["loss.temperature", "loss.sigma (m)", "bins.spacing"]
    assert [label.get_text() for label in panels[2].get_xticklabels()] == ["log", "uniform"]


def test_labels_of_searched_values_do_not_overlap():
    values = [0.0001, 0.00012, 0.0002, 0.0003, 0.001, 0.0011, 0.004, 0.01]
    rows = [(panel, "trials", "optim.lr", v, "run", s, 0.1 + v, "done") for panel in "abc" for v in values for s in (0, 1)]
    columns = ["panel", "series", "factor", "value", "run_id", "seed", "abs_rel", "state"]
    with matplotlib.rc_context(RC_PARAMS):
        figure = draw_trials(pd.DataFrame(rows, columns=columns))
        figure.draw_without_rendering()
    for axes in figure.axes:
        labels = [label for label in axes.get_xticklabels() if label.get_text()]
        boxes = [label.get_window_extent() for label in labels]
        assert len(axes.get_xticks()) == len(values)
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        assert len(labels) >= 4
