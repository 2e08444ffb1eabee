"""Interrupted studies, searches and runs: rerunning the command completes them, and no finished epoch is computed again.

Processes are ended alone or together, by Ctrl-C, SIGTERM or SIGKILL.
"""

import contextlib
import os
import signal
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from support.driver import ONE_PROCESS, Driver, wait_until

from tiekd.config.documents import with_values
from tiekd.store.run_store import RunRecord, RunStore

RESUME = "rerun the same command to resume from the last checkpoint"


@pytest.fixture
def command(tiny, as_yaml, undisturbed, tmp_path):
    """The command that computes a study of runs of several lengths."""

    def make(*lengths: str) -> tuple:
        factors = {"length": {length: undisturbed.settings(length) for length in lengths}}
        return "ablate", as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": tiny, "factors": factors}), *at_store

    at_store = "--store", tmp_path / "store"
    return make


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore(tmp_path / "store")


def metrics_in(store: RunStore) -> dict[str, dict]:
    return {record.run_id: record.read_json("summary.json")["metrics"] for record in store.runs()}


def seconds_of(record: RunRecord) -> list[float]:
    """Return the duration of each epoch, which differs if the epoch is computed again."""
    table = record.read_table("epochs.parquet")
    return [] if table is None else list(table["seconds"])


def checkpointed_seconds(record: RunRecord) -> list[float]:
    """Return the durations of epochs that are in the checkpoint: the process may have died between table and checkpoint."""
    return seconds_of(record)[: record.status().epoch]


def last_line(out: str) -> str:
    return out.splitlines()[-1]


def test_study_resumes_after_ctrl_c_and_after_the_loss_of_the_driver_or_the_raylet(
    driver, command, store, undisturbed, files, tmp_path, tiekd, shared_cluster, ray_folder, monkeypatch
):
    """One after the other, on one study. Tune, which nothing restores, keeps no snapshot meanwhile."""
    (ray_folder / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(ray_folder / "tmp"))
    words = command("short", "middle", "longest")
    record, finished = store.run(undisturbed.run_id("longest")), store.run(undisturbed.run_id("short"))
    reached = [0]

    def launch(*options: object) -> Driver:
        study = stack.enter_context(driver(*words, *options))
        study.until(lambda: record.status().epoch >= reached[-1] + 2)
        return study

    def ended() -> list[float]:
        assert record.status().state == "running"
        reached.append(record.status().epoch)
        return checkpointed_seconds(record)

    with contextlib.ExitStack() as stack:
        study = launch()
        study.until(lambda: finished.status().state == "done")
        assert [path.name for path in (ray_folder / "tmp").rglob("experiment_state*")] == ["experiment_state-none.json"]
        files_of_finished = files(tmp_path / "store/runs" / finished.run_id)
        study.signal(signal.SIGINT)
        code, out = study.wait(timeout=240)
        assert (code, last_line(out)) == (130, f"tiekd: interrupted; {RESUME}")
        assert "Traceback" not in out
        wait_until(lambda: not study.processes())
        kept = [ended()]

        study = launch(*ONE_PROCESS)
        os.kill(study.pid, signal.SIGKILL)
        kept.append(ended())
        again = launch(*ONE_PROCESS)  # immediately: trials of the killed driver may not have ended yet
        again.until(lambda: record.last_attempt().pid in again.processes("ray::ImplicitFunc"))
        os.kill(again.processes(raylet(again))[0], signal.SIGKILL)
        code, out = again.wait(timeout=240)
        assert code == 1
        assert last_line(out).startswith("tiekd: lost the connection to Ray: its local node does not answer (")
        assert last_line(out).endswith(f"; {RESUME}")
        kept.append(ended())
        wait_until(lambda: not study.processes("ray::ImplicitFunc"))  # Ray's agents take a minute longer

    outcome = tiekd(*words, "--address", shared_cluster)
    assert outcome.code == 0, outcome.err
    assert "3 cells: 3 done" in last_line(outcome.out)
    assert metrics_in(store) == undisturbed.metrics("short", "middle", "longest")
    assert [seconds_of(record)[: len(part)] for part in kept] == kept
    assert len(seconds_of(record)) == undisturbed.config("longest").optim.epochs
    assert files(tmp_path / "store/runs" / finished.run_id) == files_of_finished


def raylet(study: Driver) -> str:
    """Return the start of the raylet's command line."""
    commands = (Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0] for pid in study.processes())
    return next(command for command in commands if command.endswith("/raylet"))


def test_trial_resumes_when_its_process_dies_and_fails_after_three_deaths_in_an_epoch(
    driver, command, store, undisturbed, files, tmp_path, tiekd, shared_cluster
):
    words = *command("short", "middle", "long"), "--address", shared_cluster
    once, always = store.run(undisturbed.run_id("middle")), store.run(undisturbed.run_id("long"))
    killed = set()

    def kill_process_of(record: RunRecord) -> bool:
        """Kill the process that works on a run, unless it is one that was killed before. Returns whether it was."""
        if record.status().state != "running" or (attempt := record.last_attempt()) in killed:
            return False
        if attempt.pid == study.pid:  # the driver has taken the run over, to record its failure
            return False
        os.kill(attempt.pid, signal.SIGKILL)
        killed.add(attempt)
        return True

    def killed_until_the_end() -> bool:
        kill_process_of(always)
        return not study.running

    with driver(*words) as study:
        study.until(lambda: once.status().epoch >= 3)
        assert kill_process_of(once)
        wait_until(killed_until_the_end, timeout=240)
        code, out = study.wait(timeout=10)
    assert code == 1, out
    assert "raylet" not in out
    assert "3 cells: 2 done, 1 failed" in last_line(out)
    status = always.status()
    why = "killed by SIGKILL (out of memory, or killed manually)"
    assert (status.state, status.cause) == ("failed", f"its process died 3 times in epoch {status.epoch + 1}: {why}")
    assert b"The actor died unexpectedly" in always.read_file("error.txt")
    assert list(once.read_table("epochs.parquet")["epoch"]) == list(range(1, undisturbed.config("middle").optim.epochs + 1))

    finished = files(tmp_path / "store/runs" / once.run_id)
    outcome = tiekd(*words, "--retry-failed")
    assert outcome.code == 0, outcome.err
    assert metrics_in(store) == undisturbed.metrics("short", "middle", "long")
    assert files(tmp_path / "store/runs" / once.run_id) == finished


def test_search_resumes_after_sigterm_and_after_sigkill(
    driver, tiny, as_yaml, store, undisturbed, tmp_path, tiekd, shared_cluster
):
    as_yaml(tmp_path / "losses.yaml", {"parameters": {"loss.name": {"type": "categorical", "choices": ["si", "mse"]}}})
    search = {"space": "losses.yaml", "sampler": "grid", "scheduler": "none", "trials": 2}
    document = {"name": "demo", "base": with_values(tiny, undisturbed.settings("long")), "search": search}
    command = "search", as_yaml(tmp_path / "study.yaml", document), "--store", tmp_path / "store", *ONE_PROCESS
    record = store.run(undisturbed.run_id("long"))

    with driver(*command) as first:
        first.until(lambda: record.status().epoch >= 2)
        first.signal(signal.SIGTERM)
        code, out = first.wait(timeout=240)
        assert (code, last_line(out)) == (143, f"tiekd: terminated; {RESUME}")
        wait_until(lambda: not first.processes())
    reached = record.status().epoch
    with driver(*command, "--address", shared_cluster) as second:
        second.until(lambda: record.status().epoch >= reached + 2)
        second.kill()
    kept = checkpointed_seconds(record)

    outcome = tiekd(*command, "--address", shared_cluster)
    assert outcome.code == 0, outcome.err
    study = optuna.load_study(study_name="demo-search", storage=f"sqlite:///{tmp_path}/store/studies/demo-search/optuna.db")
    completed = [trial.params["loss.name"] for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(completed) == ["mse", "si"]
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.FAIL}
    assert seconds_of(record)[: len(kept)] == kept
    assert metrics_in(store).items() >= undisturbed.metrics("long").items()


def test_ctrl_c_while_ray_starts_leaves_no_process_and_no_run(driver, command, store):
    with driver(*command("short")) as study:
        study.until(lambda: len(study.processes()) > 1)
        study.signal(signal.SIGINT)
        code, out = study.wait(timeout=240)
        assert (code, last_line(out)) == (130, f"tiekd: interrupted; {RESUME}")
        assert "Traceback" not in out
        wait_until(lambda: not study.processes(), timeout=30)  # those that Ctrl-C did not end would stay for a minute
    assert list(store.runs()) == []


def test_run_without_ray_resumes_after_sigterm(driver, tiny, as_yaml, store, undisturbed, tmp_path, tiekd):
    config = as_yaml(tmp_path / "run.yaml", with_values(tiny, undisturbed.settings("middle")))
    command = "run", config, "--store", tmp_path / "store"
    with driver(*command) as run:
        run.until(lambda: any(record.status().epoch >= 2 for record in store.runs()))
        run.signal(signal.SIGTERM)
        code, out = run.wait(timeout=240)
    assert (code, last_line(out)) == (143, f"tiekd: terminated; {RESUME}")
    (record,) = store.runs()
    kept = checkpointed_seconds(record)
    assert tiekd(*command).code == 0
    assert seconds_of(record)[: len(kept)] == kept
    assert metrics_in(store) == undisturbed.metrics("middle")
