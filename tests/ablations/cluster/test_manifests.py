"""The files of ablations/cluster and the commands of docs/cluster.md, checked without their clusters."""

import copy
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from support.paths import ROOT

import ablations
from ablations.cli import ablate, search, status

CLUSTER = Path(ablations.__file__).parent / "cluster"
PAGE = ROOT / "docs" / "cluster.md"
MARK = "nothing to edit below"
TO_EDIT = re.compile(r"EDIT|/shared/|^#SBATCH --(job-name|nodes|cpus|gpus|time|output)", re.MULTILINE)

# Fields of KubeRay's API ray.io/v1 (ray-operator/apis/ray/v1; `authOptions` since 1.5.1) and the types of their values.
RAY_JOB = {
    "activeDeadlineSeconds": int,
    "authOptions": dict,
    "backoffLimit": int,
    "clusterSelector": dict,
    "deletionStrategy": dict,
    "entrypoint": str,
    "entrypointNumCpus": float,
    "entrypointNumGpus": float,
    "entrypointResources": str,
    "jobId": str,
    "managedBy": str,
    "metadata": dict,
    "rayClusterSpec": dict,
    "runtimeEnvYAML": str,
    "shutdownAfterJobFinishes": bool,
    "submissionMode": str,
    "submitterConfig": dict,
    "submitterPodTemplate": dict,
    "suspend": bool,
    "ttlSecondsAfterFinished": int,
}
RAY_CLUSTER = {
    "authOptions": dict,
    "autoscalerOptions": dict,
    "enableInTreeAutoscaling": bool,
    "gcsFaultToleranceOptions": dict,
    "headGroupSpec": dict,
    "headServiceAnnotations": dict,
    "managedBy": str,
    "rayVersion": str,
    "suspend": bool,
    "workerGroupSpecs": list,
}
HEAD = {"enableIngress": bool, "headService": dict, "rayStartParams": dict, "serviceType": str, "template": dict}
WORKERS = {
    "groupName": str,
    "idleTimeoutSeconds": int,
    "maxReplicas": int,
    "minReplicas": int,
    "numOfHosts": int,
    "rayStartParams": dict,
    "replicas": int,
    "scaleStrategy": dict,
    "suspend": bool,
    "template": dict,
}
AUTOSCALER = {
    "env": list,
    "envFrom": list,
    "idleTimeoutSeconds": int,
    "image": str,
    "imagePullPolicy": str,
    "resources": dict,
    "securityContext": dict,
    "upscalingMode": str,
    "version": str,
    "volumeMounts": list,
}
# Fields of Kubernetes' own API that the manifest uses; a misspelled one is not among them.
POD = {"containers": list, "terminationGracePeriodSeconds": int, "volumes": list}
CONTAINER = {"envFrom": list, "image": str, "name": str, "resources": dict, "volumeMounts": list}


def read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def check_fields(found: dict[str, Any], fields: dict[str, type], needed: set[str]) -> None:
    assert needed <= found.keys()
    assert {name: type(value) for name, value in found.items()} == {name: fields[name] for name in found}


# -- the files --------------------------------------------------------------------------------------------------------------


def test_cluster_yaml_is_valid_for_rays_launcher():
    config = prepare_config(copy.deepcopy(read("ray-cluster.yaml")))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    for command in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("RAY_AUTH_MODE=token ray start" in line for line in config[command])


def test_ray_job_has_the_fields_of_kuberays_api():
    manifest = read("rayjob.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert all(isinstance(value, str) for value in manifest["metadata"]["annotations"].values())
    check_fields(manifest["spec"], RAY_JOB, {"entrypoint", "rayClusterSpec"})
    cluster = manifest["spec"]["rayClusterSpec"]
    check_fields(cluster, RAY_CLUSTER, {"headGroupSpec", "rayVersion"})
    check_fields(cluster["autoscalerOptions"], AUTOSCALER, set())
    check_fields(cluster["headGroupSpec"], HEAD, {"rayStartParams", "template"})
    for group in cluster["workerGroupSpecs"]:
        check_fields(group, WORKERS, {"groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"})
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert cluster["authOptions"] == {"mode": "token"}


def test_pods_of_the_ray_job_mount_their_volumes():
    cluster = read("rayjob.yaml")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        check_fields(pod, POD, {"containers", "volumes"})
        (container,) = pod["containers"]
        check_fields(container, CONTAINER, {"image", "envFrom"})
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["limits"] == container["resources"]["requests"]


@pytest.mark.parametrize(
    ("tool", "file"), [("shellcheck", "slurm.sh"), ("shellcheck", "slurm-array.sh"), ("hadolint", "Dockerfile")]
)
def test_linter_finds_nothing(tool, file):
    options = ["--severity=warning"] if tool == "shellcheck" else []
    command = [Path(sys.executable).parent / tool, *options, CLUSTER / file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_image_is_made_of_what_the_wheel_needs_and_of_the_ray_that_is_locked():
    text = (CLUSTER / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (?!--)(.*) /tiekd/.*$", text, flags=re.MULTILINE) for name in line.split()}
    packages = {folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists()} - {"tests"}
    assert copied == {"LICENSE", "README.md", "pyproject.toml", "setup.cfg", *packages}
    locked = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE).group(1)
    (image,) = re.findall(r"^FROM (rayproject/ray:\S+)$", text, flags=re.MULTILINE)
    assert image == read("ray-cluster.yaml")["docker"]["image"] == f"rayproject/ray:{locked}-py311-gpu"
    assert read("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == locked


def test_slurm_options_come_before_the_first_command():
    lines = (CLUSTER / "slurm.sh").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert [line for line in lines[first:] if line.startswith("#SBATCH")] == []
    assert sum(line.startswith("#SBATCH") for line in lines) >= 5


@pytest.mark.parametrize("name", ["ray-cluster.yaml", "rayjob.yaml", "slurm.sh"])
def test_settings_to_edit_are_above_the_mark(name):
    above, mark, below = (CLUSTER / name).read_text().partition(MARK)
    assert mark
    assert TO_EDIT.search(above)
    assert not TO_EDIT.search(below)


def test_job_is_requeued_before_its_time_limit(tmp_path):
    """The script itself, with an `srun` that does not end and an `scontrol` that ends the job, as Slurm's does."""
    files = {
        "srun": 'echo $$ >"$HERE/pid"; mv "$HERE/pid" "$HERE/started"; exec sleep 600',
        "scontrol": 'echo "$@" >"$HERE/asked"; kill "$(<"$HERE/started")"',
        "activate": 'PATH="$HERE/bin:$PATH"',
    }
    (tmp_path / "bin").mkdir()
    for name, text in files.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    edit = partial(re.sub, r"^(ENVIRONMENT|FOLDER)=\S+", rf"\1={tmp_path}", flags=re.MULTILINE)
    (tmp_path / "slurm.sh").write_text(edit((CLUSTER / "slurm.sh").read_text()))
    here = {"HERE": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "1"}
    with subprocess.Popen(
        ["bash", tmp_path / "slurm.sh"], env=os.environ | here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        while not (tmp_path / "started").exists():
            assert job.poll() is None, job.stdout.read()
        job.terminate()
        out, _ = job.communicate(timeout=240)
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert "the job is requeued and will resume from the store" in out
    assert job.returncode != 0  # the study is not complete


# -- the page ---------------------------------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    """Return the commands of a text, as words."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


def test_commands_of_the_page_use_existing_options():
    app = typer.Typer()
    for verb in (ablate, search, status):
        app.command()(verb)
    options = {name: {o for p in verb.params for o in p.opts} for name, verb in typer.main.get_command(app).commands.items()}
    used = Counter()
    for words in commands(PAGE.read_text()):
        line = " ".join(words)
        for verb, given in re.findall(r"tiekd (\w+)((?:(?!&&|\|).)*)", line):
            assert set(re.findall(r"--[a-z-]+", given)) <= options[verb], line
            used[verb] += 1
    assert min(used[verb] for verb in options) >= 1


def test_commands_before_the_first_launch_work(tiekd, in_folder):
    """The section of docs/cluster.md that needs no cluster."""
    section = re.search(r"## Before the first launch\n(.*?)\n## ", PAGE.read_text(), flags=re.DOTALL).group(1)
    shutil.copytree(CLUSTER.parent, in_folder / "ablations")
    for command, *words in (found := commands(section)):
        outcome = tiekd(*words)
        assert (command, outcome.code) == ("tiekd", 0), outcome
        assert " to compute, " in outcome.out
    assert len(found) == 2


def test_links_of_the_page_lead_to_files():
    links = re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text())
    assert {Path(link).name for link in links} >= {"ray-cluster.yaml", "rayjob.yaml", "slurm.sh"}
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
