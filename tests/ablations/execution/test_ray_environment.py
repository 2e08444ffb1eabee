"""Ray's environment variables in a process that has imported Ray before `ablations`, such as a notebook's."""

import json
import subprocess
import sys

from ablations.execution.ray_environment import CORE_SETTINGS, LIBRARY_SETTINGS


def test_settings_of_tune_and_train_apply_although_ray_was_imported_first(monkeypatch):
    for name in LIBRARY_SETTINGS | CORE_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    script = "import json, os, ray, ablations; print(json.dumps(dict(os.environ)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    assert json.loads(done.stdout).items() >= LIBRARY_SETTINGS.items()
