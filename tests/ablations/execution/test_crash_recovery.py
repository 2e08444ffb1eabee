"""What is lost when processes end, alone or together, once or again and again: nothing but time."""

import contextlib
import os
import signal
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tiekd.config.documents import with_values
from tiekd.store.run_store import RunRecord, RunStore

RESUME = "rerun the same command to resume from the last checkpoint"


@pytest.fixture
def command(tiny, as_yaml, undisturbed, tmp_path) -> tuple:
    document = {"name": "demo", "base": tiny, "factors": {"length": undisturbed.levels}}
    return "ablate", as_yaml(tmp_path / "study.yaml", document), "--store", tmp_path / "store"


def metrics_in(store: RunStore) -> dict[str, dict]:
    return {record.run_id: record.read_json("summary.json")["metrics"] for record in store.runs()}


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore(tmp_path / "store")


def seconds_of(record: RunRecord) -> list[float]:
    """What each epoch took: another number once it is computed again."""
    table = record.read_table("epochs.parquet")
    return [] if table is None else list(table["seconds"])


def kept_epochs(record: RunRecord) -> list[float]:
    """What those epochs took that a checkpoint holds: an end may have come between the table and the checkpoint."""
    return seconds_of(record)[: record.status().epoch]


def last_line(out: str) -> str:
    return out.splitlines()[-1]


def test_whatever_ends_a_study_the_same_command_goes_on(driver, command, store, undisturbed, until, files, tmp_path, tiekd):
    """Ctrl-C; the driver alone killed; all of its processes; its raylet alone: one after the other, on one study."""
    record, reached = store.run(undisturbed.run_ids["long"]), [0]

    def launch():
        study = stack.enter_context(driver(*command))
        study.until(lambda: record.status().epoch >= reached[-1] + 2)
        return study

    def ended() -> list[float]:
        assert record.status().state == "running"
        reached.append(record.status().epoch)
        return kept_epochs(record)

    with contextlib.ExitStack() as stack:
        study = launch()
        study.until(lambda: store.run(undisturbed.run_ids["short"]).status().state == "done")
        finished = files(tmp_path / "store/runs" / undisturbed.run_ids["short"])
        study.signal(signal.SIGINT)
        code, out = study.wait(timeout=240)
        assert (code, last_line(out)) == (130, f"tiekd: interrupted; {RESUME}")
        assert "Traceback" not in out
        until(lambda: not study.processes())
        kept = [ended()]

        study = launch()
        os.kill(study.pid, signal.SIGKILL)
        again = launch()  # at once: trials of the killed driver may still be ending
        again.kill()
        kept.append(ended())
        until(lambda: not study.processes("ray::ImplicitFunc"))  # Ray's agents stay for a minute

        study = launch()
        os.kill(study.processes(raylet(study))[0], signal.SIGKILL)
        code, out = study.wait(timeout=240)
        assert code == 1
        assert last_line(out).startswith("tiekd: lost the connection to Ray: its local node does not answer (")
        assert last_line(out).endswith(f"; {RESUME}")
        kept.append(ended())

    outcome = tiekd(*command)
    assert outcome.code == 0, outcome.err
    assert "3 cells: 3 done" in last_line(outcome.out)
    assert metrics_in(store) == undisturbed.metrics
    assert [seconds_of(record)[: len(part)] for part in kept] == kept
    assert len(seconds_of(record)) == undisturbed.levels["long"]["optim.epochs"]
    assert files(tmp_path / "store/runs" / undisturbed.run_ids["short"]) == finished


def raylet(study) -> str:
    """How the command line of its raylet begins."""
    commands = (Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0] for pid in study.processes())
    return next(command for command in commands if command.endswith("/raylet"))


def test_a_trial_goes_on_when_its_process_dies_and_fails_when_it_always_does(
    driver, command, store, undisturbed, until, files, tmp_path, tiekd
):
    once, always = store.run(undisturbed.run_ids["middle"]), store.run(undisturbed.run_ids["long"])
    killed = set()

    def kill_at_work(record: RunRecord) -> bool:
        """Kill the process that works on a run; whether it is another than before."""
        if record.status().state != "running" or (attempt := record.last_attempt()) in killed:
            return False
        os.kill(attempt.pid, signal.SIGKILL)
        killed.add(attempt)
        return True

    def killed_to_the_end() -> bool:
        kill_at_work(always)
        return not study.running

    with driver(*command) as study:
        study.until(lambda: once.status().epoch >= 3)
        assert kill_at_work(once)
        until(killed_to_the_end, timeout=240)
        code, out = study.wait(timeout=10)
    assert code == 1
    assert "raylet" not in out
    assert "3 cells: 2 done, 1 failed" in last_line(out)
    status = always.status()
    why = "killed by SIGKILL (out of memory, or killed manually)"
    assert (status.state, status.cause) == ("failed", f"its process died 3 times in epoch {status.epoch + 1}: {why}")
    assert b"The actor died unexpectedly" in always.read_file("error.txt")
    assert list(once.read_table("epochs.parquet")["epoch"]) == list(range(1, undisturbed.levels["middle"]["optim.epochs"] + 1))

    finished = files(tmp_path / "store/runs" / once.run_id)
    outcome = tiekd(*command, "--retry-failed")
    assert outcome.code == 0, outcome.err
    assert metrics_in(store) == undisturbed.metrics
    assert files(tmp_path / "store/runs" / once.run_id) == finished


def test_a_search_goes_on_after_sigterm_and_after_kill(driver, tiny, as_yaml, store, undisturbed, until, tmp_path, tiekd):
    as_yaml(tmp_path / "losses.yaml", {"parameters": {"loss.name": {"type": "categorical", "choices": ["si", "mse"]}}})
    search = {"space": "losses.yaml", "sampler": "grid", "scheduler": "none", "trials": 2}
    document = {"name": "demo", "base": with_values(tiny, undisturbed.levels["long"]), "search": search}
    command = "search", as_yaml(tmp_path / "study.yaml", document), "--store", tmp_path / "store"
    record = store.run(undisturbed.run_ids["long"])

    with driver(*command) as first:
        first.until(lambda: record.status().epoch >= 2)
        first.signal(signal.SIGTERM)
        code, out = first.wait(timeout=240)
        assert (code, last_line(out)) == (143, f"tiekd: terminated; {RESUME}")
        until(lambda: not first.processes())
    reached = record.status().epoch
    with driver(*command) as second:
        second.until(lambda: record.status().epoch >= reached + 2)
        second.kill()
    kept = kept_epochs(record)

    outcome = tiekd(*command)
    assert outcome.code == 0, outcome.err
    study = optuna.load_study(study_name="demo-search", storage=f"sqlite:///{tmp_path}/store/studies/demo-search/optuna.db")
    ended = [trial.params["loss.name"] for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(ended) == ["mse", "si"]
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.FAIL}
    assert seconds_of(record)[: len(kept)] == kept
    assert metrics_in(store)[record.run_id] == undisturbed.metrics[record.run_id]


def test_ctrl_c_while_ray_starts_leaves_nothing(driver, command, store, until):
    with driver(*command) as study:
        study.until(lambda: len(study.processes()) > 1)
        study.signal(signal.SIGINT)
        code, out = study.wait(timeout=240)
        assert (code, last_line(out)) == (130, f"tiekd: interrupted; {RESUME}")
        assert "Traceback" not in out
        until(lambda: not study.processes(), timeout=30)  # what Ctrl-C missed would stay for a minute
    assert list(store.runs()) == []


def test_sigterm_ends_a_run_without_ray_and_the_same_command_goes_on(
    driver, tiny, as_yaml, store, undisturbed, tmp_path, tiekd
):
    config = as_yaml(tmp_path / "run.yaml", with_values(tiny, undisturbed.levels["middle"]))
    command = "run", config, "--store", tmp_path / "store"
    with driver(*command) as run:
        run.until(lambda: any(record.status().epoch >= 2 for record in store.runs()))
        run.signal(signal.SIGTERM)
        code, out = run.wait(timeout=240)
    assert (code, last_line(out)) == (143, f"tiekd: terminated; {RESUME}")
    (record,) = store.runs()
    kept = kept_epochs(record)
    assert tiekd(*command).code == 0
    assert seconds_of(record)[: len(kept)] == kept
    assert metrics_in(store).items() <= undisturbed.metrics.items()
