"""Run studies and searches on Ray: from a YAML document to finished cells in the run store."""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablations.ablate import CellResult, StudyResult, run_study

__all__ = ["CellResult", "StudyResult", "run_study"]

# Ray reads these when it is imported. If they were set later, its processes would have other settings than the driver.
RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token",  # the default, but without a warning at every start
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Epochs without validation and failed trials report no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Ctrl-C must end the command. Tune's own handler would return as if the scheduler had stopped the interrupted trials.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A SIGTERM to a whole job also reaches Ray's processes. With Ray's default of 1 s, their loss would end the driver before
    # it handles the signal.
    "RAY_get_check_signal_interval_milliseconds": "50",
    # Save seconds at the start and the end of trials with several workers.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
GIVEN_VARIABLES = [name for name in os.environ if name.startswith("RAY_")]  # by the user: Ray sets more when it is imported
if "ray" not in sys.modules:
    for _name, _value in RAY_SETTINGS.items():
        os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `import ablations` stays fast."""
    if name in __all__:
        from ablations import ablate

        return getattr(ablate, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
