"""Accuracy against the cost of measured networks."""

import pytest
from support.made_store import BASE, fill, metrics_of, write_costs

from reports.figures.cost_frontier import COST_AXES, cells_by_cost, draw_cost_frontier
from reports.loading.collect import collect
from reports.loading.network_costs import costs_on_one_device
from reports.tables.table import build_tables
from tiekd.config import build
from tiekd.config.documents import with_values

# abs_rel increases with the position: the first cell is the best.
CELLS = [
    {"student.name": "resnet50", "loss.name": "si"},
    {"student.name": "resnet18", "loss.name": "si"},
    {"student.name": "resnet18", "loss.name": "mse"},
    {"student.name": "mobilenetv2", "loss.name": "si"},
]
COSTS = [400, 200, 200, 300]


@pytest.fixture
def measured(store):
    fill(store, CELLS, 2, {"name": "study"})
    write_costs(store, CELLS, COSTS)
    return store


def only_table(store):
    (table,) = build_tables(collect(store))
    return table


def test_cells_have_the_cost_of_their_network_and_the_range_over_seeds(measured):
    data = cells_by_cost(only_table(measured))
    assert data["parameters"].tolist() == [400, 200, 200, 300]
    low, high = metrics_of(1, 0)["abs_rel"], metrics_of(1, 1)["abs_rel"]
    row = data.iloc[1]
    assert (row["low"], row["mean"], row["high"], row["n_seeds"]) == pytest.approx((low, (low + high) / 2, high, 2))
    assert row["name"] == "ResNet18, regression"


def test_pareto_front_has_the_networks_that_no_other_dominates(measured):
    data = cells_by_cost(only_table(measured))
    assert data["best"].tolist() == [True, True, False, True]
    for cost in COST_AXES:
        # MobileNetV2 is more expensive and worse than ResNet18
        assert data[f"front_{cost}"].tolist() == [True, True, False, False]


def test_cheapest_of_equally_good_networks_is_on_the_front(measured):
    for seed in range(2):
        record = measured.run(build(with_values(BASE, CELLS[1] | {"seed": seed})).fingerprint())
        record.write_json("summary.json", record.read_json("summary.json") | {"metrics": metrics_of(0, seed)})
    data = cells_by_cost(only_table(measured)).set_index("parameters")
    assert data["mean"].loc[400] == data["mean"].loc[200].min()
    assert data.loc[data["front_macs"]].index.tolist() == [200]


def test_networks_that_were_not_measured_are_left_out(store):
    fill(store, CELLS, 2, {"name": "study"})
    write_costs(store, CELLS[:2], COSTS[:2])
    assert cells_by_cost(only_table(store))["parameters"].tolist() == [400, 200, 200]


def test_one_network_has_no_frontier(store):
    fill(store, CELLS[1:3], 2, {"name": "study"})
    write_costs(store, CELLS, COSTS)
    assert cells_by_cost(only_table(store)).empty


def test_costs_of_two_devices_are_not_mixed(measured):
    write_costs(measured, CELLS[:1], [40_000], device="another")
    costs = collect(measured).costs
    assert set(costs["device"]) == {"cpu", "another"}
    assert costs_on_one_device(costs)["device"].unique().tolist() == ["cpu"]
    assert cells_by_cost(only_table(measured))["parameters"].max() == 400


def test_figure_has_a_panel_per_cost_and_each_network_once_in_the_legend(measured):
    figure = draw_cost_frontier(cells_by_cost(only_table(measured)))
    assert len(figure.axes) == len(COST_AXES)
    names = [text.get_text().partition(":")[0] for text in figure.legends[0].get_texts()]
    assert names == ["other cells", "Pareto front", *(f"{n}, regression" for n in ("ResNet50", "ResNet18", "MobileNetV2"))]
