"""Runs that are interrupted within an epoch go on from a state that was kept there, and end as if they never had been."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
import yaml
from support.runs import compute

from tiekd.config import ExecutionConfig, override
from tiekd.distill.loop import random_states, set_random_state
from tiekd.distill.runtime import CHECKPOINT, Checkpoints, LocalRuntime, copy_to_cpu, unpack_state
from tiekd.errors import StoreError, SupersededError
from tiekd.store.run_store import RunStore

pytestmark = pytest.mark.slow

ALWAYS = {"execution.checkpoint_minutes": 1e-9}
STEPS = 4  # per epoch


class Stops(LocalRuntime):
    """Stops as by Ctrl-C when a step is over, after the state before it has been written."""

    at = STEPS + 3

    def report_step(self, step, steps):
        self._checkpoints.wait()  # so that a state is due after each step
        if step == self.at:
            raise KeyboardInterrupt


class Counts(LocalRuntime):
    def __init__(self, *args):
        super().__init__(*args)
        self.steps = []

    def report_step(self, step, steps):
        self.steps.append(step)


def outcome(record) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    epochs = record.read_table("epochs.parquet").drop(columns="seconds")
    return epochs, record.read_table("images.parquet"), unpack_state(record.read_file(CHECKPOINT))


def assert_equal(found, expected) -> None:
    for table, other in zip(found[:2], expected[:2], strict=True):
        pd.testing.assert_frame_equal(table, other, check_exact=True)
    for part in ("student", "optimizer"):
        torch.testing.assert_close(found[2][part], expected[2][part], rtol=0, atol=0)


def test_only_the_steps_after_the_kept_state_are_computed_again(tiny, tiny_in, execute_run, tmp_path):
    config = tiny(ALWAYS)
    with pytest.raises(KeyboardInterrupt):
        execute_run(config, Stops)
    (record,) = RunStore(config.execution.store).runs()
    state = unpack_state(record.read_file(CHECKPOINT))
    assert (len(state["epochs"]), state["part"]["steps"], record.status().epoch) == (1, 2, 1)
    counted = []

    def count(*args):
        counted.append(Counts(*args))
        return counted[0]

    record, status = execute_run(config, count)
    assert status.state == "done"
    assert counted[0].steps == [STEPS + 3, STEPS + 4]
    undisturbed, _ = execute_run(tiny_in(tmp_path / "other", {}))
    assert_equal(outcome(record), outcome(undisturbed))
    seconds = record.read_table("epochs.parquet")["seconds"]
    assert seconds[1] >= state["part"]["seconds"]


def test_a_killed_process_loses_the_steps_since_the_last_state(tiny, tiny_in, execute_run, tmp_path):
    """A real process with SIGKILL, in the second epoch of 64 steps."""
    long = {"data.train_frames": 128, "teacher": None, "loss": {"name": "si", "target": "ground_truth"}}
    config = tiny(long | ALWAYS)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.document()))
    with subprocess.Popen(
        [sys.executable, "-m", "tiekd", "run", str(tmp_path / "run.yaml")], stderr=subprocess.DEVNULL
    ) as process:
        steps = 0
        while not steps:
            assert process.poll() is None
            for record in RunStore(config.execution.store).runs():
                content = record.read_file(CHECKPOINT)
                state = unpack_state(content) if content else {"epochs": []}
                steps = state["part"]["steps"] if len(state["epochs"]) == 1 and state["part"] else 0
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert record.status().state == "running"
    kept = unpack_state(record.read_file(CHECKPOINT))
    assert kept["part"]["steps"] >= steps
    record, status = execute_run(config)
    assert status.state == "done"
    undisturbed, _ = execute_run(tiny_in(tmp_path / "other", long))
    assert_equal(outcome(record), outcome(undisturbed))


def test_sigterm_lets_the_step_end_and_keeps_its_state(tiny, tiny_in, execute_run, tmp_path):
    long = {"data.train_frames": 256, "teacher": None, "loss": {"name": "si", "target": "ground_truth"}}
    config = tiny(long)  # which would keep a state within an epoch after ten minutes
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.document()))
    command = [sys.executable, "-m", "tiekd", "run", str(tmp_path / "run.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not any(record.status().epoch == 1 for record in RunStore(config.execution.store).runs()):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)  # into the second epoch
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.splitlines()[-1] == "tiekd: terminated; rerun the same command to resume from the last checkpoint"
    (record,) = RunStore(config.execution.store).runs()
    state = unpack_state(record.read_file(CHECKPOINT))
    assert len(state["epochs"]) == 1
    assert 0 < state["part"]["steps"] < 128
    record, _ = execute_run(config)
    undisturbed, _ = execute_run(tiny_in(tmp_path / "other", long))
    assert_equal(outcome(record), outcome(undisturbed))


def test_random_layers_go_on_with_the_numbers_of_the_interrupted_epoch():
    runtime = LocalRuntime(ExecutionConfig())
    torch.manual_seed(5)
    torch.rand(3)
    part = {"random": random_states(runtime)}
    expected = torch.rand(4)
    torch.manual_seed(9)
    set_random_state(part, runtime)
    assert torch.equal(torch.rand(4), expected)
    set_random_state({"random": part["random"] * 2}, runtime)  # of two ranks: this one has its own numbers


def test_the_state_is_copied_before_training_changes_it():
    tensor = torch.zeros(3)
    copied = copy_to_cpu({"a": [tensor, 1, "b"], "c": {"d": tensor}})
    tensor += 1
    assert copied["a"][0].sum() == copied["c"]["d"].sum() == 0
    assert copied["a"][1:] == [1, "b"]


def test_no_state_is_due_before_its_time_or_while_one_is_written(tmp_path):
    record = RunStore(tmp_path).run("r")
    assert not Checkpoints(record, minutes=10).due
    checkpoints = Checkpoints(record, minutes=1e-9)
    time.sleep(0.001)
    assert checkpoints.due
    checkpoints.write({"student": torch.zeros(1)})
    checkpoints._writing.result()
    time.sleep(0.001)
    assert checkpoints.due


def test_a_state_that_cannot_be_written_ends_the_training(tmp_path):
    record = RunStore(tmp_path / "store").run("r")
    checkpoints = Checkpoints(record, minutes=1e-9)
    (tmp_path / "store").write_text("a file")
    checkpoints.write({})
    with pytest.raises(StoreError):
        checkpoints._writing.result()
    with pytest.raises(StoreError):
        _ = checkpoints.due


def test_a_run_that_another_process_has_taken_over_keeps_its_state(tiny, execute_run):
    config = tiny(ALWAYS)

    class Taken(LocalRuntime):
        def report_step(self, step, steps):
            if step == 2:
                self._record.store.run(self._record.run_id).start(config)

    with pytest.raises(SupersededError):
        execute_run(config, Taken)


def test_the_state_goes_when_the_run_is_done_unless_it_is_kept(tiny):
    for keep in (False, True):
        config = override(tiny({"seed": int(keep)}), {"execution.keep_checkpoint": keep})
        record = compute(config, RunStore(config.execution.store))
        assert (record.read_file(CHECKPOINT) is not None) is keep
