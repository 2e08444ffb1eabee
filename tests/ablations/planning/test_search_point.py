"""The runs of a point and their mean, with simulated runs."""

from dataclasses import replace

import pytest

from ablations.planning.search_config import SearchConfig
from ablations.planning.search_point import SeedRuns, execute_point
from tiekd.data.inputs import run_id_of
from tiekd.deploy.profile import EFFICIENCY_FILE
from tiekd.errors import UserError
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

VALUES = {3: 0.25, 4: 0.5, 5: 0.9}
EPOCHS = 2


def execute_run(document, tell):
    """Simulate a run whose abs_rel depends only on its seed."""
    seed = document["seed"]
    tell({"run_id": f"run-{seed}", "epoch": 1, "abs_rel": 9.0})
    done = {"state": "done", "cause": "", "epoch": EPOCHS, "device_seconds": 1.5}
    return {"run_id": f"run-{seed}", **done, "abs_rel": VALUES[seed], "rmse": 2.0 * seed}


@pytest.fixture
def seed_runs(tiny):
    def make(seeds=(3, 4, 5), objectives=("abs_rel",), constraints=(), **settings):
        bounds = SearchConfig(space="made-up.yaml", constraints=list(constraints)).bounds
        return SeedRuns(tiny | settings, list(seeds), list(objectives), tuple(bounds))

    return make


def test_trial_result_is_the_mean_over_seeds(seed_runs):
    reported = []
    result = execute_point({"optim.lr": 0.1}, seed_runs(objectives=("abs_rel", "rmse")), execute_run, reported.append)
    assert result["state"] == "done"
    assert (result["abs_rel"], result["rmse"]) == (pytest.approx(0.55), 8.0)
    assert result["by_seed"] == [[0.25, 0.5, 0.9], [6.0, 8.0, 10.0]]
    assert (result["run_id"], result["run_ids"]) == ("run-3", ["run-3", "run-4", "run-5"])
    assert (result["epoch"], result["device_seconds"]) == (3 * EPOCHS, 4.5)


def test_first_seed_is_reported_per_epoch_and_the_others_at_their_end(seed_runs):
    reported = []
    execute_point({}, seed_runs(), execute_run, reported.append)
    assert [(t["epoch"], t["abs_rel"]) for t in reported] == [(1, 9.0), (2, 0.25), (4, 0.375)]
    assert not any("state" in t for t in reported)


def test_one_seed_is_one_run(seed_runs):
    reported = []
    result = execute_point({}, seed_runs(seeds=[4]), execute_run, reported.append)
    assert (result["abs_rel"], result["by_seed"]) == (0.5, [[0.5]])
    assert [t["epoch"] for t in reported] == [1]


@pytest.mark.parametrize("state", ["failed", "diverged", "constant"])
def test_seed_that_is_not_done_ends_the_trial_with_its_cause(seed_runs, state):
    begun = []

    def second_fails(document, tell):
        begun.append(document["seed"])
        result = execute_run(document, tell)
        return result | {"state": state, "cause": "why"} if document["seed"] == 4 else result

    result = execute_point({}, seed_runs(), second_fails, lambda outcome: None)
    assert begun == [3, 4]
    assert (result["state"], result["cause"], result["run_ids"]) == (state, "seed 4: why", ["run-3", "run-4"])


def test_point_overrides_the_stated_base_so_that_defaults_follow_it(seed_runs):
    config = seed_runs(loss={"name": "tie_kd"}).config({"loss.name": "ssim"}, seed=5)
    assert (config.loss.name, config.student.head, config.seed) == ("ssim", "regression", 5)
    with pytest.raises(UserError, match=r"loss.alpha: at most 1"):
        seed_runs(loss={"name": "tie_kd"}).config({"loss.alpha": 2.0}, seed=5)


def test_measured_objectives_are_measured_once_per_run(seed_runs, tmp_path):
    store = RunStore(tmp_path)
    store.run("run-3").write_status(Status("done"))
    costly = seed_runs(seeds=[3, 4], objectives=("abs_rel", "milliseconds"), execution={"store": str(tmp_path)})
    first = execute_point({}, costly, execute_run, lambda outcome: None)
    kept = [store.run(f"run-{seed}").read_json(EFFICIENCY_FILE)["milliseconds"] for seed in (3, 4)]
    assert first["by_seed"][1] == kept
    assert first["milliseconds"] == pytest.approx(sum(kept) / 2)
    assert execute_point({}, costly, execute_run, lambda outcome: None)["by_seed"][1] == kept


def test_trial_that_violates_a_constraint_is_infeasible_with_its_mean(seed_runs):
    bounded = seed_runs(objectives=("rmse",), constraints=["abs_rel <= 0.5", "rmse <= 100"])
    result = execute_point({}, bounded, execute_run, lambda outcome: None)
    assert (result["state"], result["cause"]) == ("infeasible", "abs_rel 0.55, limit 0.5")
    assert (result["abs_rel"], result["by_seed"]) == (pytest.approx(0.55), [[6.0, 8.0, 10.0]])
    bounded = seed_runs(objectives=("rmse",), constraints=["abs_rel <= 0.56"])
    assert execute_point({}, bounded, execute_run, lambda outcome: None)["state"] == "done"


def test_point_whose_student_costs_too_much_is_not_trained(seed_runs, tmp_path):
    store, trained = RunStore(tmp_path), []
    store.run("run-3").write_status(Status("running"))

    def run(document, tell):
        trained.append(document["student"]["name"])
        return execute_run(document, tell)

    bounded = seed_runs(constraints=["parameters <= 3e5", "rmse <= 1"], seeds=[3], execution={"store": str(tmp_path)})
    result = execute_point({"student.name": "small"}, bounded, run, lambda outcome: None)
    assert (result["state"], result["epoch"], trained) == ("infeasible", 0, [])
    record = store.run(result["run_id"])
    assert result["cause"] == f"parameters {result['parameters']}, limit 300000"
    assert record.read_json(EFFICIENCY_FILE)["parameters"] == result["parameters"] > 3e5
    assert record.document() == bounded.config({"student.name": "small"}, 3).document()
    assert "rmse" not in result
    result = execute_point({"student.name": "tiny"}, bounded, run, lambda outcome: None)
    assert (result["state"], result["cause"], trained) == ("infeasible", "rmse 6, limit 1", ["tiny"])


@pytest.fixture
def race(seed_runs, tmp_path):
    """Compute a point that is better than the base by `gains`, seed by seed; the base has runs of `n_base` seeds."""
    store, losses = RunStore(tmp_path), [0.5, 0.6, 0.55, 0.65, 0.52, 0.58]

    def make(gains, n_base=6, objective="abs_rel", **changes):
        point = {path.replace("__", "."): value for path, value in changes.items()}
        racing = replace(seed_runs(range(6), (objective,), execution={"store": str(tmp_path)}), race=True)
        for seed in range(n_base):
            base = store.run(run_id_of(racing.config({}, seed)))
            base.write_json("summary.json", {"metrics": {objective: losses[seed]}})
            base.write_status(Status("done"))

        def run(document, tell):
            seed = document["seed"]
            sign = 1 if objective == "delta1" else -1
            done = {"state": "done", "cause": "", "epoch": EPOCHS, "device_seconds": 1.5}
            run_id = run_id_of(racing.config(point, seed))
            return {"run_id": run_id, **done, objective: losses[seed] + sign * gains[seed]}

        return execute_point(point, racing, run, lambda outcome: None)

    return make


@pytest.mark.parametrize("objective", ["abs_rel", "delta1"])
def test_only_points_that_promise_to_be_better_than_the_base_get_all_seeds(race, objective):
    better = race([0.1, 0.12, 0.11, 0.1, 0.13, 0.1], objective=objective, optim__lr=0.1)
    worse = race([-0.01] * 6, objective=objective, optim__lr=0.2)
    assert (better["state"], len(better["run_ids"])) == ("done", 6)
    assert "state" not in worse  # as if a scheduler had stopped it
    assert (worse["cause"], len(worse["run_ids"])) == ("no gain to expect after 3 of 6 seeds", 3)
    later = race([0.1, 0.1, 0.1, -0.5, 0.1, 0.1], objective=objective, optim__lr=0.3)
    assert (later["cause"], later["epoch"]) == ("no gain to expect after 4 of 6 seeds", 4 * EPOCHS)


def test_nothing_is_dropped_without_results_of_the_base(race):
    assert race([-0.1] * 6, n_base=2, optim__lr=0.1)["state"] == "done"
    assert race([0.0] * 6)["state"] == "done"  # the base itself
