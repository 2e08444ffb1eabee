"""Which networks a store has, and what is kept of their cost."""

import json

import pytest

from tiekd.config import build, override
from tiekd.data.teacher_maps import MapWriter
from tiekd.deploy.profile_records import Cost, network_id, read_cost, read_costs, store_networks, write_cost
from tiekd.errors import UserError
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

KITTI = {"data": {"dataset": "kitti"}, "loss": {"name": "si", "target": "ground_truth"}}
TAUGHT = {"data": {"dataset": "kitti"}, "teacher": {"name": "adabins", "maps": "nowhere"}, "loss": {"name": "tie_kd"}}


def cost_of(network: str, device: str = "AMD EPYC 7B13, 1 thread") -> Cost:
    return Cost(network, "tiny", [64, 96], "fp32", device, 10, 20, 3.0, 2.5, 3.5, 30, None, {"torch": "2"})


def put(store: RunStore, *configs) -> None:
    for number, config in enumerate(configs):
        record = store.run(f"run{number}")
        record.write_config(config)
        record.write_status(Status("done"))


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"seed": 3, "loss.name": "mse", "optim.epochs": 1, "student.pretrained": True}, True),
        ({"bins.n_bins": 64}, True),  # a regression head has no bins
        ({"student.name": "resnet18"}, False),
        ({"data.dataset": "nyu"}, False),
        ({"optim.precision": "bf16"}, False),
        ({"student.decoder_channels": [64, 48, 32, 16]}, False),
        ({"student.decoder": "fastdepth"}, False),
    ],
)
def test_runs_share_a_network_when_an_image_is_the_same_work(changes, same):
    config = build(KITTI)
    assert (network_id(config) == network_id(override(config, changes))) is same


def test_bins_make_a_network_where_the_head_reads_them():
    few, many = (build({**TAUGHT, "bins": {"n_bins": n}}) for n in (64, 128))
    assert network_id(few) != network_id(many)


def test_each_network_of_a_store_is_named_once_with_its_roles(tmp_path):
    store = RunStore(tmp_path / "store")
    baseline, taught = build(KITTI), build(TAUGHT)
    teacher = build({"data": {"dataset": "kitti"}, "student": {"name": "adabins"}})
    put(store, baseline, override(baseline, {"seed": 1}), taught, teacher)
    store.run("broken").write_file("config.yaml", b"data: [")
    networks, maps_only = store_networks(store)
    assert {n.name: n.roles for n in networks.values()} == {
        "MobileNetV2, regression": ["student"],
        "MobileNetV2, 257 bins": ["student"],
        "adabins": ["teacher adabins"],
    }
    assert maps_only == []


def test_a_teacher_of_maps_has_a_network_only_where_their_manifest_names_it(tmp_path):
    store, maker = RunStore(tmp_path / "store"), build({**KITTI, "student": {"name": "resnet50"}})
    for name, made_by in (("told", {"config": maker.document()}), ("silent", {"imported": "from elsewhere"})):
        with MapWriter(tmp_path / name, 80.0, made_by):
            pass
    put(store, *(build({**TAUGHT, "teacher": {"name": n, "maps": str(tmp_path / n)}}) for n in ("told", "silent", "gone")))
    networks, maps_only = store_networks(store)
    assert networks[network_id(maker)].roles == ["teacher told"]
    assert maps_only == ["silent", "gone"]


def test_a_studys_networks_are_those_of_its_cells_also_of_cells_that_never_ran(tmp_path):
    store = RunStore(tmp_path / "store")
    put(store, build(KITTI))
    document = build({**KITTI, "student": {"name": "resnet18"}}).document()
    of_another_version = document | {"data": document["data"] | {"gone": 1}}
    cells = [{"run_id": None, "config": config} for config in (document, of_another_version)]
    store.write_study("later", {"study": {"name": "later"}, "cells": cells})
    assert [n.name for n in store_networks(store, "later")[0].values()] == ["ResNet18, regression"]
    assert len(store_networks(store)[0]) == 2
    with pytest.raises(UserError, match="did you mean later"):
        store_networks(store, "latr")


def test_costs_are_kept_by_device_and_read_back(tmp_path):
    store = RunStore(tmp_path / "store")
    assert read_costs(store, ["a"]) == []
    here, there = cost_of("a"), cost_of("a", "NVIDIA H100 80GB HBM3")
    for cost in (here, there):
        write_cost(store, cost)
    assert (tmp_path / "store/efficiency/amd-epyc-7b13-1-thread/a.json").is_file()
    assert read_cost(store, here.device, "a") == here
    assert read_cost(store, here.device, "b") is None
    assert read_costs(store, ["b", "a", "a"]) == [here, there]


@pytest.mark.parametrize("content", ["{ cut off", "[1]", json.dumps({"network": "a"})])
def test_a_damaged_cost_counts_as_missing(tmp_path, content):
    store, cost = RunStore(tmp_path / "store"), cost_of("a")
    store.write_bytes("efficiency/amd-epyc-7b13-1-thread/a.json", content.encode())
    assert read_cost(store, cost.device, "a") is None
    assert [*store.damaged] == ["efficiency/amd-epyc-7b13-1-thread/a.json"]
