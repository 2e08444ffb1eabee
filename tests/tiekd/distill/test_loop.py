import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import tiekd
from tiekd.config import RunConfig
from tiekd.data import open_frames, open_inputs
from tiekd.distill.loop import CHECK_EVERY, StepLog, evaluate_loss, train_epoch, train_loader, train_step, validate
from tiekd.distill.optim import build_optimizer, learning_rate
from tiekd.distill.runtime import CHECKPOINT, LocalRuntime, pack_state, unpack_state
from tiekd.errors import DivergedError
from tiekd.inference.evaluate import evaluate, evaluate_protocols, score_image
from tiekd.losses import build_loss
from tiekd.metrics import METRICS, mean_metrics
from tiekd.models.checkpoint import load_network
from tiekd.models.registry import build_network
from tiekd.store.run_store import RunStore

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
STEPS = 4  # per epoch of the tiny config: 8 frames in batches of 2
GROUND_TRUTH = {"loss": {"name": "si", "target": "ground_truth"}}


def rows(record) -> pd.DataFrame:
    """The epochs, less what the clock says."""
    return record.read_table("epochs.parquet").drop(columns="seconds")


def assert_same_outcome(record, other) -> None:
    """Equal to the last bit: epochs, test images, and all that training would go on from."""
    assert [r.status().state for r in (record, other)] == ["done", "done"]
    pd.testing.assert_frame_equal(rows(record), rows(other), check_exact=True)
    images = (r.read_table("images.parquet") for r in (record, other))
    pd.testing.assert_frame_equal(*images, check_exact=True)
    states = [unpack_state(r.read_file(CHECKPOINT)) for r in (record, other)]
    for part in ("student", "optimizer"):
        torch.testing.assert_close(states[0][part], states[1][part], rtol=0, atol=0)


def interrupted(after_epoch: int = 0, after_step: int = 0):
    """A local runtime that is interrupted, as by Ctrl-C, once an epoch is reported or a step is over."""

    class Interrupted(LocalRuntime):
        def report(self, epochs, state):
            super().report(epochs, state)
            if len(epochs) == after_epoch:
                raise KeyboardInterrupt

        def report_step(self, step, steps):
            if step == after_step:
                raise KeyboardInterrupt

    return Interrupted


@pytest.fixture
def interrupt(execute_run):
    """Carry a run out up to an interruption; its record."""

    def carry(config: RunConfig, **when: int):
        with pytest.raises(KeyboardInterrupt):
            execute_run(config, interrupted(**when))
        (record,) = RunStore(config.execution.store).runs()
        return record

    return carry


# -- learning -------------------------------------------------------------------------------------------------------------


def assert_learnt(record, config: RunConfig) -> None:
    """The loss has fallen, and on its training frames the student is far better than the mean depth of these."""
    losses = record.read_table("epochs.parquet")["loss"]
    assert losses.iloc[-1] < losses.iloc[0] / 2
    source = open_frames(config.data, "train")
    mean = np.mean([source.load(index).depth_gt.mean() for index in range(len(source))])
    flat = np.full((64, 96), mean, np.float32)
    guesses = [score_image(flat, source.load(index), config.data, "none") for index in range(len(source))]
    student, _ = load_network(f"{record.store.uri}/{record.folder}/student.safetensors")
    learnt = mean_metrics(list(evaluate(student, config, source, CPU, range(len(source)))))
    assert learnt["rmse"] < mean_metrics(guesses)["rmse"] / 2  # about a third of it, whatever the seed


def test_a_student_learns_from_ground_truth(teacher):
    assert_learnt(teacher.record, teacher.config)


def test_a_student_learns_from_its_teachers_maps_alone(tiny, learning, execute_run):
    config = tiny(learning)
    record, status = execute_run(config)
    assert status.state == "done"
    assert_learnt(record, config)


# -- one step -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overrides", "target"), [({}, "depth_teacher"), (GROUND_TRUTH, "depth_gt")], ids=["kd", "gt"])
def test_the_first_loss_is_that_of_the_seeded_student_on_the_first_batch(tiny, execute_run, overrides, target):
    config = tiny({"optim": {"epochs": 1, "batch_size": 8}, **overrides})
    record, _ = execute_run(config)
    torch.manual_seed(config.seed)
    student = build_network(config).train()
    loader = train_loader(open_inputs(config), config, LocalRuntime(config.execution, record))
    loader.batch_sampler.set_epoch(1)
    (batch,) = loader
    values = evaluate_loss(build_loss(config), student(batch["image"]), {target: batch[target]})
    row = rows(record).iloc[0]
    for name, value in values.items():
        column = name if name == "loss" else f"part_{name}"
        assert row[column] == pytest.approx(value.item(), rel=1e-6)


def test_each_part_is_logged_and_trained_on_its_own_target(tiny, execute_run):
    parts = {"labels": {"name": "si", "target": "ground_truth"}, "tie_kd": {"weight": 0.1}, "smoothness": {"weight": 1e-3}}
    config = tiny({"loss.parts": parts, "data.labelled": 4, "optim.epochs": 1})
    record, status = execute_run(config)
    assert status.state == "done", status.cause
    columns = {name: rows(record)[name].item() for name in rows(record) if name.startswith("part_")}
    assert columns.keys() == {"part_labels", "part_tie_kd.dpm", "part_tie_kd.depth", "part_smoothness"}
    assert all(value > 0 for value in columns.values())


def test_a_step_clips_the_gradient_and_tells_its_norm(tiny, execute_run):
    config = tiny({"optim.clip_grad_norm": 1e-3})
    runtime = LocalRuntime(config.execution, RunStore(config.execution.store).run("none"))
    student, batch = build_network(config), next(iter(train_loader(open_inputs(config), config, runtime)))
    values = train_step(student, build_loss(config), batch, build_optimizer(student, config.optim), config.optim, runtime)
    norm = torch.cat([p.grad.flatten() for p in student.parameters()]).norm()
    assert values["gradient"] > 1e-3
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_rows_tell_step_and_learning_rate(tiny, execute_run):
    config = tiny({"optim.epochs": 3})
    record, _ = execute_run(config)
    table = record.read_table("epochs.parquet")
    assert table["epoch"].tolist() == [1, 2, 3]
    assert table["step"].tolist() == [STEPS, 2 * STEPS, 3 * STEPS]
    assert table["lr"].tolist() == [learning_rate(step - 1, 3 * STEPS, config.optim) for step in table["step"]]


def test_only_every_so_many_epochs_are_validated_and_always_the_last(tiny, execute_run):
    record, _ = execute_run(tiny({"optim.epochs": 3, "evaluation.every": 2}))
    table = record.read_table("epochs.parquet")
    assert table["abs_rel"].notna().tolist() == [False, True, True]
    means = mean_metrics(record.read_table("images.parquet").to_dict("records"))
    assert table.iloc[-1][list(METRICS)].to_dict() == means


def test_bf16_learns_the_same_only_roughly(tiny, execute_run):
    table, rough = (rows(execute_run(tiny({"optim.precision": p}))[0]) for p in ("fp32", "bf16"))
    assert rough["loss"][0] == pytest.approx(table["loss"][0], rel=0.2)  # eight steps with 8 bits of mantissa
    assert rough["loss"][0] != table["loss"][0]


# -- the same again -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tiny_in, execute_run, tmp_path):
    seeds = {"first": 0, "again": 0, "other": 1}
    first, again, other = (execute_run(tiny_in(tmp_path / store, {"seed": seed}))[0] for store, seed in seeds.items())
    assert_same_outcome(first, again)
    assert (rows(first)["loss"] != rows(other)["loss"]).all()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than a small machine has CPUs
def test_loader_processes_leave_the_numbers_alone(tiny_in, execute_run, tmp_path):
    configs = (tiny_in(tmp_path / f"{workers}", {"execution.data_workers": workers}) for workers in (0, 2))
    assert_same_outcome(*(execute_run(config)[0] for config in configs))


class Dropping(torch.nn.Module):
    """A student that loses half of the image's values at random."""

    def __init__(self, student: torch.nn.Module):
        super().__init__()
        self.student = student

    def forward(self, image: torch.Tensor):
        return self.student(torch.nn.functional.dropout(image, training=self.training))


def test_what_layers_draw_depends_on_the_epoch_and_not_on_what_was_drawn_before(tiny):
    config = tiny({"optim.lr": 1e-12})  # in effect the same weights throughout
    runtime = LocalRuntime(config.execution, RunStore(config.execution.store).run("none"))
    torch.manual_seed(0)
    model = Dropping(build_network(config))

    def loss(drawn_before: int) -> float:
        torch.manual_seed(drawn_before)
        optimizer = build_optimizer(model, config.optim)
        loader = train_loader(open_inputs(config), config, runtime)
        part, ignore = {}, lambda part: None
        return train_epoch(1, model, build_loss(config), loader, optimizer, config.optim, runtime, part, ignore)["loss"]

    assert loss(drawn_before=1) == pytest.approx(loss(drawn_before=2), rel=1e-6)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_generator_of_the_students_layers_alone(tiny, workers):
    config = tiny({"execution.data_workers": workers})
    loader = train_loader(
        open_inputs(config), config, LocalRuntime(config.execution, RunStore(config.execution.store).run("none"))
    )
    before = torch.get_rng_state()
    assert sum(1 for _ in loader) == STEPS
    assert torch.equal(torch.get_rng_state(), before)


LONGER = {"optim.epochs": 4, "evaluation.every": 2}


@pytest.fixture(scope="module")
def uninterrupted(tiny_in, execute_run, tmp_path_factory):
    """The record of a run of four epochs that nothing disturbed."""
    return execute_run(tiny_in(tmp_path_factory.mktemp("uninterrupted"), LONGER))[0]


@pytest.mark.parametrize(
    "when",
    [{"after_epoch": 1}, {"after_epoch": 3}, {"after_epoch": 4}, {"after_step": 2}, {"after_step": 2 * STEPS + 3}],
    ids=["first epoch", "third epoch", "last epoch", "within the first epoch", "within the third epoch"],
)
def test_a_run_that_was_interrupted_ends_as_if_it_never_had_been(tiny, execute_run, interrupt, uninterrupted, when):
    config = tiny(LONGER)
    assert interrupt(config, **when).status().state == "running"
    record, status = execute_run(config)
    assert status.state == "done"
    assert_same_outcome(record, uninterrupted)


def test_a_run_interrupted_at_every_epoch_ends_as_if_it_never_had_been(tiny, execute_run, interrupt, uninterrupted):
    config = tiny(LONGER)
    for epoch in (1, 2, 3, 4):
        assert interrupt(config, after_epoch=epoch).status().epoch == epoch
    record, _ = execute_run(config)
    assert_same_outcome(record, uninterrupted)


def test_a_run_begun_with_a_compiled_student_goes_on_with_a_plain_one_to_the_same_end(
    tiny, execute_run, interrupt, uninterrupted, monkeypatch
):
    """Traced by PyTorch's compiler, but run operation by operation: not every machine has a C++ compiler."""
    traced = []

    def backend(graph, inputs):
        traced.append(len(graph.graph.nodes))
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    assert interrupt(tiny(LONGER | {"execution.compile": True}), after_epoch=2).status().epoch == 2
    assert max(traced) > 100  # a student, and not the sum that is compiled to see whether it can be
    record, _ = execute_run(tiny(LONGER))
    np.testing.assert_allclose(rows(record)["loss"], rows(uninterrupted)["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    "content",
    [b"", b"random", pack_state({"epochs": []}), pack_state({"student": {}, "optimizer": {}, "epochs": []})],
    ids=["empty", "random", "without a student", "of another network"],
)
def test_a_run_with_a_damaged_checkpoint_starts_afresh_and_says_so(
    tiny, execute_run, interrupt, uninterrupted, content, caplog
):
    config = tiny(LONGER)
    record = interrupt(config, after_epoch=2)
    record.write_file(CHECKPOINT, content)
    record, _ = execute_run(config)
    assert_same_outcome(record, uninterrupted)
    assert "starts afresh" in caplog.text
    assert "starts afresh" in record.provenance()["damaged"][CHECKPOINT]


# -- what goes wrong ------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run_with_step_parts_and_learning_rate(tiny, execute_run):
    record, status = execute_run(tiny({"optim.lr": 1e9}))
    assert status.state == "diverged"
    cause = r"not finite at step \d+: dpm \S+, depth \S+, loss \S+, gradient (nan|inf); learning rate \d\S+"
    assert pd.Series([status.cause]).str.fullmatch(cause).all()
    assert record.read_file("student.safetensors") is None


def tamper(record, change) -> None:
    """Change the student of a run's checkpoint in place."""
    state = unpack_state(record.read_file(CHECKPOINT))
    change(state["student"])
    record.write_file(CHECKPOINT, pack_state(state))


def test_the_first_step_that_is_not_finite_is_the_one_told(tiny, execute_run, interrupt):
    config = tiny()
    record = interrupt(config, after_epoch=1)
    tamper(record, lambda student: student["head.logits.bias"].fill_(math.inf))
    _, status = execute_run(config)
    assert status.state == "diverged"
    assert status.cause.startswith(f"not finite at step {STEPS + 1}: dpm nan, ")
    assert (status.epoch, status.epochs) == (1, 2)


@pytest.mark.parametrize("bad", [{"loss": math.nan}, {"gradient": math.inf}], ids=["loss", "gradient"])
def test_losses_are_looked_at_every_so_many_steps(bad):
    log = StepLog(first_step=100)
    for step in range(CHECK_EVERY - 1):
        values = {"loss": 1.0, "gradient": 2.0} | (bad if step == 6 else {})
        log.add({name: torch.tensor(value) for name, value in values.items()}, lr=0.5)
    with pytest.raises(DivergedError, match=r"not finite at step 107: loss \S+, gradient \S+; learning rate 0.5$"):
        log.add({"loss": torch.tensor(1.0), "gradient": torch.tensor(2.0)}, lr=0.5)


def test_an_epochs_loss_is_the_mean_over_all_its_steps():
    log = StepLog(first_step=0)
    for step in range(2 * CHECK_EVERY + 7):
        log.add({"loss": torch.tensor(float(step))}, lr=0.5)
    assert log.means() == {"loss": (2 * CHECK_EVERY + 6) / 2}


def test_a_prediction_that_is_not_finite_ends_the_run_with_its_image(tiny, execute_run, interrupt):
    config = tiny()
    record = interrupt(config, after_epoch=2)
    tamper(record, lambda student: student["head.logits.bias"].fill_(math.nan))
    _, status = execute_run(config)
    assert (status.state, status.cause) == ("diverged", "the prediction for test image test/scene_000/0000 is not finite")


def test_one_depth_all_over_is_no_result(tiny, execute_run, interrupt):
    config = tiny()
    record = interrupt(config, after_epoch=2)
    tamper(record, lambda student: student["head.logits.weight"].zero_())
    record, status = execute_run(config)
    assert (status.state, status.cause) == ("constant", "every prediction is one depth all over")
    images = record.read_table("images.parquet")
    assert (images["depth_max"] - images["depth_min"]).max() < 1e-5


def test_rows_come_in_the_data_sets_order_whatever_order_ranks_report_in(tiny):
    class Backwards(LocalRuntime):
        def gather(self, rows):
            return rows[::-1]

    config = tiny({"evaluation.also": ["none+median", "none+log_lsq"]})
    runtime = Backwards(config.execution, RunStore(config.execution.store).run("none"))
    test = open_frames(config.data, "test")
    student = build_network(config)
    images, also = validate(student, config, test, runtime, last=True)
    assert [row["image"] for row in images] == test.keys
    assert [(row["protocol"], row["image"]) for row in also] == [
        (name, key) for name in ("none+median", "none+log_lsq") for key in test.keys
    ]
    assert validate(student, config, test, runtime, last=False) == (images, [])


def test_more_protocols_leave_the_run_and_its_numbers_alone(tiny, execute_run, tmp_path):
    stores = [{"execution.store": str(tmp_path / name)} for name in ("plain", "more")]
    plain, _ = execute_run(tiny(stores[0]))
    more, _ = execute_run(tiny(stores[1] | {"evaluation.also": ["none+median", "none@4m"]}))
    assert more.run_id == plain.run_id
    assert more.read_table("images.parquet").equals(plain.read_table("images.parquet"))
    assert plain.read_table("protocols.parquet") is None
    rows = more.read_table("protocols.parquet")
    student, config = load_network(f"{more.store.uri}/{more.folder}/student.safetensors")
    again = evaluate_protocols(student, config, open_frames(config.data, "test"), CPU, range(4), config.evaluation.specs)
    expected = pd.DataFrame([row for rows_of_frame in again for row in rows_of_frame[1:]])
    keys = ["protocol", "image"]
    pd.testing.assert_frame_equal(rows.sort_values(keys, ignore_index=True), expected.sort_values(keys, ignore_index=True))


def test_a_run_without_a_store_gives_the_numbers_of_one_with_a_store(tiny, execute_run, in_folder, tree):
    config = tiny()
    record, _ = execute_run(config)
    before = tree(in_folder)
    assert tiekd.distill(config).metrics == record.read_json("summary.json")["metrics"]
    assert tree(in_folder) == before
