"""The Slurm script from start to end on two nodes of this machine with separate networks, processes, host names and disks.

Slurm alone is replaced: by an `srun` that starts the command once on each node, as Slurm's does.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ablations
from tiekd.store.run_store import RunStore

SCRIPT = Path(ablations.__file__).parent / "cluster" / "slurm.sh"
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for node in $NODES; do
    ip netns exec "$node" unshare --mount --uts --pid --fork --kill-child --mount-proc "$HERE/node" "$node" "$@" &
done
wait
"""
# The first process of a node: lists the processes that are still running when the command has ended.
NODE = """#!/usr/bin/env bash
hostname "$1"
for disk in "$RAY_TMPDIR" "$UNSHARED"; do mount -t tmpfs none "$disk"; done
"${@:2}"
for process in /proc/[0-9]*; do
    [[ ${process##*/} == $$ ]] || tr '\\0' ' ' <"$process/cmdline" 2>/dev/null
done >"$HERE/left-$1"
"""
# Before the launch, two that must be refused: with a store that the nodes do not share, and with a wrong token.
TIEKD = """#!/usr/bin/env bash
RAY_AUTH_TOKEN=another {tiekd} "$@" >"$HERE/wrong-token" 2>&1 &
{tiekd} "${{@/$STORE/$UNSHARED/store}}" >"$HERE/unshared" 2>&1
echo "exit code $?; in the store: $(ls -A "$UNSHARED")" >>"$HERE/unshared"
wait -n
echo "exit code $?" >>"$HERE/wrong-token"
exec {tiekd} "$@"
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[str]]:
    """Names of two network namespaces, connected to each other."""
    if sys.platform != "linux" or os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "mount"))):
        pytest.skip("network namespaces are made by root, with iproute2 and util-linux")
    names = [f"tk{os.getpid()}{end}" for end in "ab"]
    made = []
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
                pytest.skip("this machine allows no network namespaces")
            made.append(name)
        _ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, 1):
            _ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in made:
            _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@dataclass(frozen=True)
class Job:
    """Results of the script."""

    folder: Path
    nodes: list[str]
    code: int
    out: str

    def output(self, name: str) -> str:
        return (self.folder / name).read_text()


def edited(script: str, **settings: object) -> str:
    """Return the script with some of its settings edited."""
    for name, value in settings.items():
        script, count = re.subn(rf"^{name}=\S+", f"{name}={value}", script, flags=re.MULTILINE)
        assert count == 1, name
    return script


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def job(nodes, ray_folder, tmp_path_factory, tiny, as_yaml) -> Job:
    folder = tmp_path_factory.mktemp("job")
    (folder / "unshared-disk").mkdir()
    store = folder / "store"
    study = as_yaml(folder / "study.yaml", {"name": "demo", "base": tiny, "factors": {"loss.name": ["si", "mse"]}})
    bin_folder = Path(sys.executable).parent
    executable(folder / "bin" / "srun", SRUN)
    executable(folder / "bin" / "tiekd", TIEKD.format(tiekd=bin_folder / "tiekd"))
    executable(folder / "node", NODE)
    (folder / "bin" / "activate").write_text(f"PATH={folder}/bin:{bin_folder}:$PATH")
    script = folder / "slurm.sh"
    script.write_text(edited(SCRIPT.read_text(), ENVIRONMENT=folder, FOLDER=folder, STUDY=study, STORE=store))
    here = {"HERE": folder, "UNSHARED": folder / "unshared-disk", "STORE": store, "NODES": " ".join(nodes), "HOME": folder}
    slurm = {"SLURM_JOB_ID": 1, "SLURM_JOB_NUM_NODES": 2, "SLURM_CPUS_PER_TASK": 1}
    environment = os.environ | {name: str(value) for name, value in (here | slurm).items()}
    done = subprocess.run(
        ["ip", "netns", "exec", nodes[0], "bash", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    return Job(folder, nodes, done.returncode, done.stdout)


def test_every_cell_is_computed_and_both_nodes_are_used(job):
    assert job.code == 0, job.out
    assert "2 cells: 2 done; computed 2, " in job.out
    records = list(RunStore(job.folder / "store").runs())
    assert [record.status().state for record in records] == ["done"] * 2
    assert {record.last_attempt().host for record in records} == set(job.nodes)


def test_store_that_the_nodes_do_not_share_is_refused_before_anything_is_written(job):
    *_, line, end = job.output("unshared").splitlines()
    assert line.startswith("tiekd: nodes of the cluster differ from this one: 10.77.0.2: ")
    assert "/store is another store there; " in line
    assert end == "exit code 2; in the store: "


def test_wrong_token_is_refused(job):
    *_, line, end = job.output("wrong-token").splitlines()
    assert line.startswith("tiekd: --address 10.77.0.1:")
    assert "the Ray cluster rejects this process's token; the token is read from RAY_AUTH_TOKEN, " in line
    assert end == "exit code 2"


def test_no_process_is_left_on_either_node(job):
    assert {node: job.output(f"left-{node}") for node in job.nodes} == dict.fromkeys(job.nodes, "")
