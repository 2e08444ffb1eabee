"""Ray's environment variables in a process that has imported Ray before `ablations`, such as a notebook's."""

import json
import os
import subprocess
import sys

import pytest

from ablations.execution import READ_AT_IMPORT, READ_WHEN_USED, check_variables
from tiekd.errors import UserError


def test_settings_that_are_read_when_used_apply_although_ray_was_imported_first(monkeypatch):
    for name in READ_WHEN_USED | READ_AT_IMPORT:
        monkeypatch.delenv(name, raising=False)
    script = "import json, os, ray, ablations; print(json.dumps(dict(os.environ)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    assert json.loads(done.stdout).items() >= READ_WHEN_USED.items()


LAUNCH = """
import sys
from tiekd.__main__ import main
sys.argv = ["tiekd", "ablate", "study.yaml", "--store", "store"]
main()
"""


def test_a_variable_at_which_ray_crashes_is_refused_before_anything_is_written(as_yaml, tiny, tmp_path):
    as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": tiny})
    variables = {"RAY_raylet_start_wait_time_s": "abc", "RAY_event_stats": "false"}  # a segmentation fault; a valid one
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH], env=os.environ | variables, capture_output=True, text=True, timeout=240, cwd=tmp_path
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("tiekd: RAY_raylet_start_wait_time_s=abc: Ray ends at this value when it starts")
    assert not (tmp_path / "store").exists()


def test_an_unknown_way_to_authenticate_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "none")
    with pytest.raises(UserError, match=r"^RAY_AUTH_MODE=none: unknown; valid: token, disabled, k8s$"):
        check_variables()
