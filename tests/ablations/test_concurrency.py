"""How many cells a launch computes at the same time, as its plan says."""

import json
import os

import pytest

LOSSES = {"loss.name": ["si", "mse", "ssim", "ssim_si"]}


@pytest.fixture
def slots(tiekd, study_file, tmp_path):
    def read(*options: object) -> int:
        outcome = tiekd("ablate", study_file(factors=LOSSES), "--store", tmp_path / "store", "--dry-run", "--json", *options)
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)["estimate"]["slots"]

    return read


def test_plan_counts_the_cpus_that_the_process_may_use(slots, monkeypatch):
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert slots() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    assert slots() == 1


def test_max_concurrent_limits_the_plan(slots):
    assert slots("--max-concurrent", 1) == 1
    assert slots("--max-concurrent", 100) == slots()


@pytest.mark.parametrize("verb", ["ablate", "search"])
@pytest.mark.parametrize("value", [0, -1])
def test_max_concurrent_below_one_is_refused(mistake, study_file, verb, value):
    path = study_file(factors=LOSSES, search={"space": "bins.yaml", "trials": 3})
    line = mistake(verb, path, "--max-concurrent", value)
    assert line == f"tiekd: --max-concurrent: must be at least 1, got {value}"
