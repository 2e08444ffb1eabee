import pytest

from tiekd.data.inputs import RunIds, run_id_of
from tiekd.distill.preflight import check_ready
from tiekd.errors import UserError

SK = {"student": {"name": "timm", "encoder": "skresnet18", "head": "regression"}, "loss.name": "si"}
ONE = (
    r"optim.batch_size: skresnet18 cannot be trained on one frame at a time, .* data.train_crop 48x64; needed 2 frames or more"
)


@pytest.mark.parametrize("changes", [{"optim.batch_size": 1}, {"data.train_frames": 1}], ids=str)
def test_a_network_whose_batch_norms_need_two_frames_is_refused_one(tiny, changes):
    with pytest.raises(UserError, match=ONE):
        check_ready(tiny(SK | changes))


@pytest.mark.parametrize(
    "changes", [SK | {"data.train_frames": 3}, {"optim.batch_size": 1}], ids=["rest of one", "no such norm"]
)
def test_what_can_be_trained_is_not_refused(tiny, changes):
    check_ready(tiny(changes))


def test_each_worker_needs_a_frame(tiny):
    changes = {"data.train_frames": 2, "optim.batch_size": 4, "execution.workers": 3}
    with pytest.raises(UserError, match=r"execution.workers: each needs a training frame, got 3 for 2 frames"):
        check_ready(tiny(changes))


def test_a_rest_of_one_frame_is_trained_on(tiny, execute_run):
    _, status = execute_run(tiny(SK | {"data.train_frames": 3, "optim.epochs": 1}))
    assert status.state in ("done", "constant")  # one step teaches it little


def test_ids_of_many_runs_are_those_of_each(tiny):
    configs = [tiny({"seed": seed, "loss.name": name}) for seed in (0, 1) for name in ("si", "tie_kd")]
    run_ids = RunIds()
    assert [run_ids(config) for config in configs] == [run_id_of(config) for config in configs]


def test_how_often_a_run_is_validated_changes_neither_its_id_nor_its_numbers(tiny, execute_run, tmp_path):
    runs = [tiny({"evaluation.every": every, "execution.store": str(tmp_path / str(every))}) for every in (1, 2)]
    records = [execute_run(config)[0] for config in runs]
    assert records[0].run_id == records[1].run_id
    summaries = [record.read_json("summary.json") for record in records]
    assert summaries[0] == summaries[1]
