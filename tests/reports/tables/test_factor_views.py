"""The factors of a study: one at a time, grids, backbones and teachers."""

import pytest
from support.made_store import BASE, GROUND_TRUTH, fill

from reports.loading.collect import collect
from reports.pages.table_views import TableView, compact_views, extra_views
from reports.render.text_table import Number
from reports.tables.factor_views import label_grids, numeric_grids, one_factor_blocks
from reports.tables.table import build_tables, tables_frame
from tiekd.config import build
from tiekd.config.report_config import Bold
from tiekd.deploy.profile_records import Cost, network_id, write_cost
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

ONE_AT_A_TIME = {"name": "oat", "vary": "one_at_a_time", "base": BASE}
GRID = [{"bins.n_bins": n, "loss.temperature": t} for n in (64, 32) for t in (0.5, 1.0, 2.0)]


def table_of(store):
    (table,) = build_tables(collect(store))
    return table


def titled(views: list[TableView], title: str) -> TableView:
    (found,) = [view for view in views if view.title.startswith(title)]
    return found


def test_each_factor_is_a_block_around_the_base(store):
    fill(store, [{}, {"loss.sigma": 2.0}, {"loss.sigma": 0.25}, {"loss.temperature": 2.0}], 2, ONE_AT_A_TIME)
    blocks = one_factor_blocks(table_of(store))
    assert [(block.factor, block.base, block.cells) for block in blocks] == [
        ("loss.sigma", 0, (2, 0, 1)),  # 0.25, the base's 0.5, 2
        ("loss.temperature", 0, (0, 3)),
    ]


def test_a_grid_that_contains_the_base_has_blocks(store):
    fill(store, GRID, 1, {"name": "grid", "base": {**BASE, "bins": {"n_bins": 64}}})
    blocks = one_factor_blocks(table_of(store))
    assert [(block.factor, block.base, block.cells) for block in blocks] == [
        ("bins.n_bins", 1, (4, 1)),
        ("loss.temperature", 1, (0, 1, 2)),
    ]


@pytest.mark.parametrize("study", [{"base": BASE}, {"base": {"data": 3}}, {}])
def test_a_grid_without_the_base_has_no_blocks(store, study):
    fill(store, [{"loss.temperature": t} for t in (0.1, 0.2)], 1, {"name": "grid", **study})
    assert one_factor_blocks(table_of(store)) == []


def test_levels_are_compared_with_the_base_paired_by_seed(store):
    lost = {(2, 0): Status("failed", "no memory")}
    fill(store, [{}, {"loss.sigma": 2.0}, {"loss.temperature": 2.0}], 2, ONE_AT_A_TIME, lost)
    view = titled(extra_views(table_of(store)), "One factor at a time")
    frame = view.content.to_frame().set_index(["Factor", "Value"])
    assert list(frame.index) == [
        ("loss.sigma", "0.5 (base)"),
        ("loss.sigma", "2"),
        ("loss.temperature", "1 (base)"),
        ("loss.temperature", "2"),
    ]
    assert frame["Abs Rel − base"].tolist() == ["–", "+0.0020", "–", "+0.0040"]
    assert frame["p (Holm)"].tolist() == ["–", "1.000", "–", "1.000"]
    assert frame.iloc[3]["State"] == "1 of 2 seeds: 1 failed: no memory"
    assert view.content.rules == {2}
    assert "Holm's correction for the 2 tests" in " ".join(view.notes)


def test_a_grid_of_two_numeric_factors_shows_the_state_of_each_cell(store):
    lost = {(1, 0): Status("failed", "x"), (2, 0): Status("diverged", "y"), (2, 1): Status("diverged", "y")}
    fill(store, GRID, 2, {"name": "grid"}, lost, missing=(5, 1))
    table = table_of(store)
    view = titled(extra_views(table), "bins.n_bins × loss.temperature: Abs Rel")
    assert view.content.columns == ["bins.n_bins", "temperature = 0.5", "temperature = 1", "temperature = 2"]
    assert view.content.to_frame().values.tolist() == [
        ["32", "0.0663 ± 0.0004 (2)", "0.0683 ± 0.0004 (2)", "0.0700 ± – (1 of 2)"],
        ["64", "0.0602 ± 0.0004 (2)", "0.0625 ± – (1 of 2)", "diverged (0 of 2)"],
    ]
    places = [entry.anchor for row in view.content.rows for entry in row if isinstance(entry, Number)]
    assert places == ["cell-4", "cell-5", "cell-6", "cell-1", "cell-2", "cell-3"]


def test_factors_that_do_not_vary_together_make_no_grid(store):
    fill(store, [{}, {"loss.sigma": 2.0}, {"loss.temperature": 2.0}], 1, ONE_AT_A_TIME)
    assert numeric_grids(table_of(store)) == []


def test_a_third_factor_makes_one_grid_per_value(store):
    fill(store, [{**cell, "loss.sigma": s} for cell in GRID for s in (0.5, 1.0)], 1, {"name": "grid"})
    grids = [grid for grid in numeric_grids(table_of(store)) if "loss.sigma" not in (grid.row_name, grid.column_name)]
    assert [grid.context for grid in grids] == ["sigma=0.5", "sigma=1"]


def test_methods_by_backbones(store):
    cells = [
        {**loss, "student.name": name} for name in ("resnet18", "resnet50") for loss in (GROUND_TRUTH, {"loss.name": "mse"})
    ]
    fill(store, cells, 1, {"name": "backbones"})
    frame = titled(extra_views(table_of(store)), "Backbones").content.to_frame()
    assert list(frame.columns) == ["Method", "ResNet18", "ResNet50"]
    assert frame["Method"].tolist() == ["Baseline · SI", "AdaBins · Res-KD · MSE"]
    assert frame["ResNet50"].tolist() == ["0.0640 ± – (1)", "0.0660 ± – (1)"]


def test_methods_by_teachers_with_a_baseline_without_teacher(store):
    taught = [
        {"teacher.name": t, "teacher.maps": f"maps/{t}", "loss.name": n} for t in ("adabins", "bts") for n in ("si", "mse")
    ]
    fill(store, [GROUND_TRUTH, *taught, {"student.name": "bts"}], 1, {"name": "teachers"})
    table = table_of(store)
    (grid,) = label_grids(table)
    assert (grid.columns, len(grid.places)) == (("", "adabins", "bts"), 5)
    frame = titled(extra_views(table), "Teachers").content.to_frame()
    assert list(frame.columns) == ["Method", "no teacher", "AdaBins", "BTS"]
    assert frame.iloc[0].tolist()[1:] == ["0.0600 ± – (1)", "", ""]


def bold_and_notes(store: RunStore, rule: Bold) -> dict[str, tuple[list[tuple[bool, bool]], str]]:
    """By study: whether Abs Rel and δ1 of each row are bold, and the notes."""
    found = {}
    for table in build_tables(collect(store), rule):
        (view,) = compact_views(table)
        abs_rel, delta1 = (view.content.columns.index(title) for title in ("Abs Rel", "δ1"))
        found[table.study.name] = [(row[abs_rel].best, row[delta1].best) for row in view.content.rows], " ".join(view.notes)
    return found


def test_the_best_mean_is_bold_or_what_the_seeds_support(store):
    fill(store, [{"loss.name": name} for name in ("si", "mse")], 6, {"name": "six"})
    fill(store, [{"loss.name": name} for name in ("si", "mse")], 5, {"name": "five"})
    best, tested, none = (bold_and_notes(store, rule) for rule in ("best", "tested", "none"))
    for name in ("five", "six"):
        assert best[name][0] == [(True, False), (False, True)]
        assert "the best mean of each metric. It is not a test" in best[name][1]
        assert none[name][0] == [(False, False)] * 2
        assert "old" not in none[name][1]
    assert tested["six"][0] == [(True, False), (False, True)]
    assert "Bold: in the students of one backbone" in tested["six"][1]
    assert tested["five"][0] == [(False, False)] * 2
    assert "**Nothing is bold**: 5 seeds cannot show which of 2 rows is best; that needs 6 per row." in tested["five"][1]


def test_a_search_shows_only_its_trials(store):
    fill(store, GRID, 1, {"name": "hunt", "kind": "search"})
    table = table_of(store)
    assert extra_views(table) == []
    assert [view.title for view in compact_views(table)] == [""]


def test_costs_of_measured_networks_are_in_the_page_and_the_parquet_file(store):
    (cell, *_) = fill(store, [{"loss.name": "si"}, {"loss.name": "mse"}, {"student.name": "resnet18"}], 1, {"name": "costs"})
    network = network_id(build(cell["config"]))
    name = "MobileNetV2, regression"
    cost = Cost(network, name, [4, 8], "fp32", "a CPU", 2_500_000, 3_200_000_000, 41.26, 40.0, 43.0, 30, None)
    write_cost(store, cost)
    table = table_of(store)
    view = titled(extra_views(table), "Networks")
    assert view.content.columns == ["Network", "Params [M]", "MACs [G]", "ms/image", "Memory [MB]", "Device"]
    assert view.content.rows == [[name, "2.50", "3.20", "41.3 [40.0, 43.0]", "–", "a CPU"]]
    frame = tables_frame([table]).query("metric == 'rmse'")
    assert frame["parameters"].tolist()[:2] == [2_500_000] * 2
    assert frame["milliseconds"].isna().tolist() == [False, False, True]
    assert frame["device"].isna().tolist() == [False, False, True]
