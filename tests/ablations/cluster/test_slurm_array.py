"""The script of a Slurm job array: tasks at the same time share a study, in a folder and in a bucket; one of them is stopped.

Slurm alone is replaced: the tests start the tasks, and start one again as Slurm does when it is requeued.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from support.driver import Driver

import ablations
from tiekd.config.documents import with_values
from tiekd.store.claims import CLAIMS
from tiekd.store.run_store import RunStore

pytestmark = pytest.mark.slow

SCRIPT = Path(ablations.__file__).parent / "cluster" / "slurm-array.sh"
LOSSES, SEEDS, EPOCHS = ["si", "mse"], [0, 1, 2], 6
COMPUTED = re.compile(r"^done +(loss\.name=\w+, seed=\d)", re.MULTILINE)


class Task(Driver):
    """A task of the array, in a session of its own."""

    def __init__(self, script: Path, task: int):
        slurm = {"SLURM_JOB_ID": str(task), "SLURM_ARRAY_TASK_ID": str(task), "SLURM_CPUS_ON_NODE": "1"}
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            ["bash", script],
            env=os.environ | slurm,
            start_new_session=True,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> RunStore:
    if request.param == "folder":
        return RunStore(tmp_path / "store")
    return RunStore(f"s3://{request.getfixturevalue('bucket')}/shared")


@pytest.fixture
def script(store, tiny, as_yaml, tmp_path) -> Path:
    """The script, its settings edited; `scontrol` keeps what it is told."""
    base = with_values(tiny, {"optim.epochs": EPOCHS, "evaluation.every": EPOCHS})
    study = as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": base, "factors": {"loss.name": LOSSES}, "seeds": SEEDS})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/scontrol\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    (tmp_path / "bin" / "activate").write_text(f"PATH={tmp_path}/bin:{Path(sys.executable).parent}:$PATH")
    text = SCRIPT.read_text()
    for name, value in {"ENVIRONMENT": tmp_path, "FOLDER": tmp_path, "STUDY": study, "STORE": store.uri}.items():
        text, count = re.subn(rf"^{name}=\S+", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1, name
    edited = tmp_path / "slurm-array.sh"
    edited.write_text(text)
    return edited


def test_tasks_share_a_study_and_go_on_without_one_that_is_stopped(driver, store, script, tmp_path):
    with contextlib.ExitStack() as stack:
        numbers = (1, 2, 3) if store.local else (1, 2)
        tasks = first, *others = [stack.enter_context(Task(script, number)) for number in numbers]
        others[0].until(lambda: any(COMPUTED.search(task.out) for task in tasks))
        if store.local:
            os.kill(first.pid, signal.SIGTERM)  # as Slurm before the time limit
            assert first.wait(timeout=240)[0] != 0
            assert (tmp_path / "scontrol").read_text() == "requeue 1\n"
        else:
            first.kill()
        with Task(script, 1) as again:
            ended = [task.wait(timeout=400) for task in (*others, again)]
        outputs = [first.out, *(out for _, out in ended)]
    for code, out in ended:
        assert code == 0, out
        assert "6 cells: 6 done; " in out
    computed = Counter(name for out in outputs for name in COMPUTED.findall(out))
    assert set(computed.values()) == {1}
    assert len(computed) >= 5  # the stopped task may have ended one without a word
    assert {record.read_table("epochs.parquet")["epoch"].max() for record in store.runs()} == {EPOCHS}
    assert store.list_files(CLAIMS) == {}
    assert store.read_study("demo")["commands"] == [["tiekd", "ablate", str(tmp_path / "study.yaml"), "--store", store.uri]]
