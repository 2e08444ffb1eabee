"""Ray's environment variables in a process that has imported Ray before `ablations`, such as a notebook's."""

import json
import subprocess
import sys

from ablations.execution import READ_AT_IMPORT, READ_WHEN_USED


def test_settings_that_are_read_when_used_apply_although_ray_was_imported_first(monkeypatch):
    for name in READ_WHEN_USED | READ_AT_IMPORT:
        monkeypatch.delenv(name, raising=False)
    script = "import json, os, ray, ablations; print(json.dumps(dict(os.environ)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    assert json.loads(done.stdout).items() >= READ_WHEN_USED.items()
