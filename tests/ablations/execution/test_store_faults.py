"""Studies whose store is a bucket, on a disk that fills up, or in a folder that disappears."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest
from support.driver import ONE_PROCESS
from support.runs import compute

from ablations.search.optuna_storage import open_storage
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.distill.runtime import CHECKPOINT, unpack_state
from tiekd.errors import StoreError
from tiekd.store import object_store
from tiekd.store.run_store import RunStore

EPOCHS = 20  # enough for both runs to be in progress at the same time
LOSSES = ["si", "mse"]
DISK_BYTES = 32 * 2**20


@pytest.fixture(scope="module")
def base(tiny):
    """A run of a few seconds."""
    return with_values(tiny, {"optim.epochs": EPOCHS, "evaluation.every": EPOCHS})


@pytest.fixture(scope="module")
def expected(base, tmp_path_factory) -> dict[str, dict]:
    """Metrics of the same runs, computed in this process, by run id."""
    store = RunStore(tmp_path_factory.mktemp("expected"))
    for loss in LOSSES:
        compute(build(with_values(base, {"loss.name": loss})), store)
    return metrics_in(store)


def metrics_in(store: RunStore) -> dict[str, dict]:
    return {record.run_id: record.read_json("summary.json")["metrics"] for record in store.runs()}


@pytest.fixture
def study_file(base, as_yaml, tmp_path) -> Path:
    return as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": base, "factors": {"loss.name": LOSSES}})


def in_progress(store: RunStore) -> bool:
    """Whether every run has finished two epochs."""
    statuses = [record.status() for record in store.runs()]
    return len(statuses) == len(LOSSES) and all(status.epoch >= 2 for status in statuses)


# -- a bucket -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def killed(driver, study_file, bucket, gate, monkeypatch) -> RunStore:
    """A store in a bucket. Its launch was killed, with Ray, during the upload of a checkpoint."""
    store = RunStore(f"s3://{bucket}/some/prefix")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", gate.url)
        with driver("ablate", study_file, "--store", store.uri) as study:
            study.until(lambda: in_progress(store))
            gate.cut_off(f"{CHECKPOINT} HTTP".encode())
            study.until(gate.caught.is_set)
            study.kill()
    return store


def test_study_killed_during_an_upload_resumes_in_its_bucket(killed, study_file, expected, tiekd, s3, bucket, tmp_path):
    assert {record.status().state for record in killed.runs()} == {"running"}
    kept = {record.run_id: unpack_state(record.read_file(CHECKPOINT))["epochs"] for record in killed.runs()}
    assert all(2 <= len(epochs) < EPOCHS for epochs in kept.values())

    outcome = tiekd("ablate", study_file, "--store", killed.uri, *ONE_PROCESS)
    assert outcome.code == 0, outcome.err
    assert "2 cells: 2 done; computed 2, " in outcome.out
    assert metrics_in(killed) == expected
    for record in killed.runs():
        seconds = list(record.read_table("epochs.parquet")["seconds"])
        before = [epoch["seconds"] for epoch in kept[record.run_id]]
        assert seconds[: len(before)] == before  # not computed again
    assert {Path(key).name for key in s3.objects(bucket) if "/studies/" in key} == {"study.json", "ray-tune.log"}
    everything = b"".join(s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in s3.objects(bucket))
    assert s3.environment()["AWS_SECRET_ACCESS_KEY"].encode() not in everything

    check_commands(tiekd, study_file, killed, tmp_path)


def check_commands(tiekd, study_file: Path, store: RunStore, folder: Path) -> None:
    """Every command that reads a store works with a bucket."""
    run_ids = [record.run_id for record in store.runs()]
    outcome = tiekd("ablate", study_file, "--store", store.uri)
    assert (outcome.code, "2 cells: 2 done; nothing to compute" in outcome.out) == (0, True)
    assert json.loads(tiekd("status", store.uri, "--json").out)["states"] == {"done": 2}
    assert tiekd("report", store.uri, "--out", folder / "report").code == 0
    assert sorted(pd.read_parquet(folder / "report" / "runs.parquet")["run_id"]) == run_ids
    assert "loss.name: " in tiekd("diff", *run_ids, "--store", store.uri).out
    address = f"{store.uri}/runs/{run_ids[0]}"
    assert "loss.name: " in tiekd("diff", address, f"{store.uri}/runs/{run_ids[1]}").out
    measured = store.run(run_ids[0]).read_json("summary.json")["metrics"]
    for words in ((address,), (run_ids[0][:8], "--store", store.uri)):
        found = json.loads(tiekd("evaluate", *words, "--json").out)["metrics"]
        assert found == pytest.approx(measured)


def test_run_ends_when_the_server_fails_and_resumes_afterwards(base, as_yaml, bucket, s3, gate, tiekd, monkeypatch, tmp_path):
    store = RunStore(f"s3://{bucket}")
    config = as_yaml(tmp_path / "run.yaml", with_values(base, {"optim.epochs": 2}))
    monkeypatch.setattr(object_store, "MAX_ATTEMPTS", 1)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", gate.url)
        gate.refuse(b"epochs.parquet")
        outcome = tiekd("run", config, "--store", store.uri)
    (record,) = store.runs()
    assert (outcome.code, outcome.err.count("cannot write")) == (1, 1)
    assert outcome.err.splitlines()[-1].startswith(
        f"tiekd: cannot write runs/{record.run_id}/epochs.parquet in store {store.uri}: "
    )
    assert (record.status().state, record.status().cause) == ("running", "")
    assert tiekd("run", config, "--store", store.uri).code == 0
    assert record.status().state == "done"


@pytest.mark.parametrize("verb", ["ablate", "status", "report"])
def test_missing_bucket_is_refused_in_one_line(verb, study_file, bucket, s3, tiekd):
    words = {"ablate": (study_file, "--store", "s3://no-bucket/p"), "status": ("s3://no-bucket/p",)}
    outcome = tiekd(verb, *words.get(verb, words["status"]))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"tiekd: store s3://no-bucket/p: there is no bucket 'no-bucket' at {s3.url}\n"


# -- a disk -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path) -> Iterator["SmallDisk"]:
    """A small disk in a mount namespace of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    flags = ["-m"] if os.geteuid() == 0 else ["-U", "-r", "-m"]
    mount = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs {shlex.quote(str(folder))} && echo mounted && exec sleep infinity"
    with subprocess.Popen(
        ["unshare", *flags, "sh", "-c", mount], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as at:
        if at.stdout.readline() != "mounted\n":
            pytest.skip(f"cannot mount a disk here: {at.stderr.read().strip()}")
        yield SmallDisk(folder, at.pid)
        at.kill()


class SmallDisk:
    """A small tmpfs in the mount namespace of a process."""

    def __init__(self, folder: Path, pid: int):
        self.folder = folder
        self.seen = Path(f"/proc/{pid}/root{folder}")  # as this process sees it
        user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        self.inside = ["nsenter", "-t", str(pid), *user, "-m", "--"]

    def fill(self) -> None:
        """Write until no byte is free."""
        with (self.seen / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(2**16))

    def files(self) -> list[str]:
        return [str(path.relative_to(self.seen)) for path in self.seen.rglob("*") if path.is_file()]


def test_study_resumes_after_a_full_disk_and_a_vanished_store(driver, disk, study_file, expected, tiekd, shared_cluster):
    store = RunStore(disk.seen / "store")
    command = ("ablate", study_file, "--store", disk.folder / "store")

    with driver(*command, inside=disk.inside) as study:
        study.until(lambda: in_progress(store))
        disk.fill()
        code, out = study.wait(timeout=240)
    where = rf"tiekd: cannot write runs/\S+ in store {re.escape(str(disk.folder))}/store: No space left on device"
    assert code == 1, out
    assert re.fullmatch(where, out.splitlines()[-1]), out
    assert (out.count("tiekd: "), out.count("Traceback"), out.count("failed")) == (1, 0, 0), out
    assert {(record.status().state, record.status().cause) for record in store.runs()} == {("running", "")}
    assert not [name for name in disk.files() if "/." in name]
    reached = {record.run_id: unpack_state(record.read_file(CHECKPOINT))["epochs"] for record in store.runs()}
    (disk.seen / "ballast").unlink()

    command = "ablate", study_file, "--store", store.uri, "--address", shared_cluster
    with driver(*command) as study:
        study.until(lambda: any(record.status().epoch > len(reached[record.run_id]) for record in store.runs()))
        (disk.seen / "store").rename(disk.seen / "elsewhere")
        code, out = study.wait(timeout=240)
    assert code == 1, out
    assert out.splitlines()[-1] == f"tiekd: store {store.uri} has disappeared: its folder is gone; is its disk mounted?"
    assert (out.count("tiekd: "), out.count("Traceback"), out.count("failed")) == (1, 0, 0), out
    assert not (disk.seen / "store").exists()
    (disk.seen / "elsewhere").rename(disk.seen / "store")

    outcome = tiekd(*command)
    assert outcome.code == 0, outcome.err
    assert metrics_in(store) == expected
    for record in store.runs():
        seconds = list(record.read_table("epochs.parquet")["seconds"])
        before = [epoch["seconds"] for epoch in reached[record.run_id]]
        assert seconds[: len(before)] == before


def test_search_whose_database_vanishes_ends_in_one_line(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()

    def lose_it() -> None:
        with open_storage(f"sqlite:///{folder}/optuna.db") as storage:
            study = optuna.create_study(storage=storage)
            shutil.rmtree(folder)
            study.ask()

    with pytest.raises(StoreError, match=r"^the search's database sqlite:///\S+/optuna\.db failed: [^\n]+$"):
        lose_it()
