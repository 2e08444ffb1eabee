import json
from collections import Counter

import pytest

from ablations.planning.cells import expand_cells
from ablations.planning.estimate import NO_BASIS, SAME_KIND, SAME_NETWORK, Estimate
from ablations.planning.plan import make_plan, network_key, readiness_errors, study_record
from ablations.prepared_study import PreparedStudy
from tiekd.config import build, override
from tiekd.config.cpus import usable_cpus
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

LOSSES = {"loss.name": ["si", "mse", "ssim", "ssim_mse"]}


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store")


@pytest.fixture
def four(study):
    return expand_cells(study(factors=LOSSES))


def ids(plan):
    return [c.run_id for c in plan.cells]


def computed(plan):
    return [c.run_id for c in plan.to_compute]


def finish(store, plan, *states, seconds=0.0):
    """Write these states for the runs of a plan's first cells."""
    for c, state in zip(plan.cells, states, strict=False):
        cause, epoch = "why" if state == "failed" else "", c.cell.config.optim.epochs if state == "done" else 0
        store.run(c.run_id).write_status(Status(state, cause, epoch, device_seconds=seconds))


def test_empty_store_has_every_cell_to_compute(four, store, tmp_path):
    plan = make_plan(four, store)
    assert plan.state_counts == {"missing": 4}
    assert computed(plan) == ids(plan)
    assert len(set(ids(plan))) == 4
    assert plan.missing_inputs == []
    assert list(tmp_path.iterdir()) == []


def test_finished_runs_are_skipped_and_interrupted_ones_computed(four, store):
    finish(store, make_plan(four, store), "done", "diverged", "constant", "running")
    plan = make_plan(four, store)
    assert plan.state_counts == Counter(["done", "diverged", "constant", "running"])
    assert computed(plan) == ids(plan)[3:]


def test_failed_runs_are_computed_only_with_retry_failed(four, store):
    finish(store, make_plan(four, store), "failed", "done")
    plan = make_plan(four, store)
    assert plan.cells[0].status.cause == "why"
    assert computed(plan) == ids(plan)[2:]
    assert computed(make_plan(four, store, retry_failed=True)) == [ids(plan)[0], *ids(plan)[2:]]


def test_run_shared_by_several_cells_is_computed_once(study, store):
    cells = expand_cells(study(factors=[{"loss.name": ["si", "mse"]}, {"loss.sigma": [1.0, 2.0]}]))  # si does not read sigma
    plan = make_plan(cells, store)
    assert len(plan.cells) == 4
    assert computed(plan) == ids(plan)[:2]
    assert plan.unread_factors == ["loss.sigma"]


def test_factor_that_some_run_reads_is_no_unread_one(study, store):
    grid = expand_cells(study(factors={"loss.name": ["si", "tie_kd"], "loss.sigma": [1.0, 2.0]}))
    assert make_plan(grid, store).unread_factors == []
    one_each = expand_cells(study(vary="one_at_a_time", factors={"optim.lr": [0.1, 0.2], "loss.sigma": [1.0, 2.0]}))
    assert make_plan(one_each, store).unread_factors == ["loss.sigma"]


def test_run_id_does_not_depend_on_the_path_of_the_maps(study, store, maps, tmp_path):
    (tmp_path / "moved").symlink_to(maps)
    plan = make_plan(expand_cells(study(factors={"teacher.maps": [str(maps), str(tmp_path / "moved")]})), store)
    assert len(set(ids(plan))) == 1


def test_missing_inputs_are_listed_once_and_give_no_run_id(study, store, tmp_path):
    factors = {
        "source": {"there": {}, "nowhere": {"teacher.maps": str(tmp_path / "nowhere")}},
        "loss.name": ["si", "mse"],
    }
    plan = make_plan(expand_cells(study(factors=factors, seeds=[0, 1])), store)
    assert [run_id is None for run_id in ids(plan)] == [False] * 4 + [True] * 4
    assert len(plan.missing_inputs) == 1
    assert f"teacher maps {tmp_path / 'nowhere'}: no such folder" in plan.missing_inputs[0]
    assert len(plan.to_compute) == 4
    assert [c.status.state for c in plan.cells[4:]] == ["missing"] * 4


def test_maps_of_an_unused_teacher_may_be_missing(study, store, tiny):
    base = tiny | {"teacher": {"name": "x", "maps": "nowhere"}, "loss": {"name": "si", "target": "ground_truth"}}
    assert make_plan(expand_cells(study(base=base)), store).missing_inputs == []


def test_baseline_needs_maps_only_with_the_quirk_baseline_on_teacher(study, store, tiny):
    base = tiny | {"teacher": {"name": "x", "maps": "nowhere"}, "loss": {"name": "si", "target": "ground_truth"}}
    quirk = {"corrected": {"fidelity": "corrected"}, "on_teacher": {"fidelity": ["baseline_on_teacher"]}}
    plan = make_plan(expand_cells(study(base=base, factors={"quirk": quirk})), store)
    assert [bool(c.missing) for c in plan.cells] == [False, True]
    assert [[c.cell.factors["quirk"] for c in cells] for cells in plan.cells_by_missing_input.values()] == [["on_teacher"]]


def test_estimate_is_the_cost_of_runs_of_the_same_kind(four, store):
    assert make_plan(four, store).estimate().cells_by_basis == {NO_BASIS: 4}
    finish(store, make_plan(four, store), "done", seconds=50.0)
    assert make_plan(four, store).estimate() == Estimate(150.0, {SAME_KIND: 3})


def test_estimate_scales_with_epochs(study, store):
    cells = expand_cells(study(factors={"optim.epochs": [2, 3]}, seeds=[0, 1]))
    finish(store, make_plan(cells, store), "done", seconds=50.0)
    assert make_plan(cells, store).estimate() == Estimate(50.0 + 2 * 75.0, {SAME_KIND: 3})


def test_estimate_uses_unfinished_runs_and_counts_remaining_epochs(study, store):
    cells = expand_cells(study(factors={"optim.epochs": [10]}, seeds=[0, 1]))
    store.run(make_plan(cells, store).cells[0].run_id).write_status(Status("running", epoch=4, device_seconds=40.0))
    assert make_plan(cells, store).estimate() == Estimate(60.0 + 100.0, {SAME_KIND: 2})


def test_estimate_scales_with_frames_and_is_unknown_for_other_networks(study, store, tiny):
    base = tiny | {"loss": {"name": "si", "target": "ground_truth"}}  # the maps cover only the base's frames
    levels = {"all": {}, "half": {"data.train_frames": 4}, "other": {"student.decoder_channels": [32, 16, 8, 8]}}
    cells = expand_cells(study(base=base, factors={"source": levels}))
    finish(store, make_plan(cells, store), "done", seconds=200.0)
    plan = make_plan(cells, store)
    assert plan.estimate() == Estimate(100.0, {SAME_NETWORK: 1, NO_BASIS: 1})
    assert plan.to_dict()["estimated_device_seconds"] is None
    told = plan.estimate().summary(slots=2)
    assert told == f"0.03 device-hours, 0.01 hours on 2 devices (1 from {SAME_NETWORK}; 1 more of unknown cost)"


def test_estimate_of_a_finished_study_is_zero(four, store):
    finish(store, make_plan(four, store), *["done"] * 4)
    assert make_plan(four, store).estimate() == Estimate(0.0, {})


def test_study_record_has_each_cell(study, four, store):
    record = json.loads(json.dumps(study_record(study(factors=LOSSES), make_plan(four, store), [])))
    assert record["study"]["factors"] == LOSSES
    assert [cell["factors"] for cell in record["cells"]] == [{"loss.name": name} for name in LOSSES["loss.name"]]
    assert record["cells"][1]["config"]["loss"]["name"] == "mse"


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
def test_dry_run_tells_the_floor_of_l_dpm(tiekd, study_file, tmp_path, as_json):
    path = study_file(factors={"loss.name": ["si", "tie_kd"]})
    outcome = tiekd("ablate", path, "--store", tmp_path / "store", "--dry-run", *as_json)
    (line,) = [line for line in (outcome.err if as_json else outcome.out).splitlines() if line.startswith("L_DPM")]
    assert line.startswith("L_DPM's target misses the teacher: abs_rel ")
    assert line.endswith("(loss.sigma 0.5 m, loss.temperature 1, 16 bins); see docs/fidelity.md")
    if as_json:
        assert json.loads(outcome.out)["remark"] == line


def test_dry_run_as_json_is_one_object_and_writes_nothing(tiekd, study_file, tmp_path, maps):
    factors = {"source": {"there": {}, "nowhere": {"teacher.maps": str(tmp_path / "nowhere")}}}
    path = study_file(factors=factors)
    outcome = tiekd("ablate", path, "--store", tmp_path / "store", "--dry-run", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    keys = {"cells", "teachers", "maps", "to_compute", "missing_inputs", "estimated_device_seconds", "estimate", "remark"}
    assert set(found) == keys | {"execution", "resources"}
    assert found["execution"]["cpus_per_worker"] == 1
    assert found["remark"] == ""
    there, nowhere = found["cells"]
    assert {"run_id", "state", "config"} <= set(there)
    assert found["to_compute"] == [there["run_id"]]
    assert (there["state"], there["config"]["teacher"]["maps"]) == ("missing", str(maps))
    assert nowhere["run_id"] is None
    assert [nowhere["missing"]] == found["missing_inputs"]
    assert sorted(tmp_path.iterdir()) == [path]


def test_dry_run_as_text_lists_cells_missing_inputs_and_the_estimate(tiekd, study_file, tmp_path):
    path = study_file(factors={"source": {"there": {}, "[/nowhere]": {"teacher.maps": str(tmp_path / "[/nowhere]")}}})
    out = tiekd("ablate", path, "--store", tmp_path / "store", "--dry-run").out
    assert "source=[/nowhere], seed=0" in out
    assert "2 cells: 2 missing; 1 to compute, estimate unknown" in out
    assert f"missing teacher maps {tmp_path}/[/nowhere]: no such folder" in " ".join(out.split())
    assert "(1 of 2 cells)" in out


def test_dry_run_shows_what_is_made_for_the_cells(tiekd, study_file, tmp_path, tiny):
    teacher = {"teacher": {"name": "bts", "run": {"student.name": "small"}}}
    baseline = {"loss.name": ["si"], "loss.target": ["ground_truth"]}
    path = study_file(base=tiny | teacher, factors=[{"loss.name": ["mse"]}, baseline])
    words = "ablate", path, "--store", tmp_path / "store", "--dry-run"
    found = json.loads(tiekd(*words, "--json").out)
    (run,), (maps,) = found["teachers"], found["maps"]
    student, alone = found["cells"]
    assert found["to_compute"] == [run["run_id"], student["run_id"], alone["run_id"]]
    assert maps == {"maps_id": maps["maps_id"], "teacher": "bts", "made": False, "needs": run["run_id"]}
    header, *rows, last, resources = tiekd(*words).out.splitlines()
    assert header.split()[-2:] == ["begins", "after"]
    assert [row.split() for row in rows] == [
        [run["run_id"], "missing", "teacher=bts,", "seed=0"],
        [maps["maps_id"], "missing", "maps", "of", "bts,", "12", "frames", run["run_id"]],
        [student["run_id"], "missing", "loss.name=mse,", "seed=0", maps["maps_id"]],
        [alone["run_id"], "missing", "loss.name=si,", "loss.target=ground_truth,", "seed=0"],
    ]
    assert last.startswith("2 cells: 2 missing; 3 to compute, maps of bts to make, estimate unknown")
    assert resources == f"a trial gets 1 CPU; {usable_cpus()} at the same time"


def test_protocol_that_does_not_fit_the_frames_is_a_missing_input(study, store):
    cells = expand_cells(study(factors={"evaluation.protocol": ["none", "nyu-eigen"]}))
    plan = PreparedStudy(study(), store, make_plan(cells, store), cells, []).check_networks(readiness_errors).plan
    assert plan.missing_inputs == ["protocol nyu-eigen is defined on 480 x 640 frames, got 64 x 96"]
    assert len(plan.to_compute) == 1


def test_a_dry_run_tells_the_floor_of_l_dpm(study_file, tiny, tiekd):
    path = study_file(base=tiny | {"loss": {"name": "l_dpm", "sigma": 4.0}})
    assert "L_DPM's target misses the teacher: abs_rel " in tiekd("ablate", path, "--dry-run").out
    assert json.loads(tiekd("ablate", path, "--dry-run", "--json").out)["remark"].startswith("L_DPM's target misses")


def test_runs_that_are_scored_under_other_protocols_are_checked_by_themselves():
    plain = build({"data": {"dataset": "synthetic-indoor"}, "loss": {"name": "si", "target": "ground_truth"}})
    also = override(plain, {"evaluation.also": ["nyu-eigen"]})
    assert network_key(also) != network_key(plain)
    assert readiness_errors([plain, also]) == ["", "protocol nyu-eigen is defined on 480 x 640 frames, got 96 x 128"]
