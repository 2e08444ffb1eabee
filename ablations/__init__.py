"""How studies run: on Ray, from a YAML document to finished cells in the run store."""

import os
import sys

# Ray reads these once, when it is imported: setting them later would leave its processes with other settings than its driver.
RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token",  # explicit, and so without a warning at every start
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Epochs without validation and trials that failed report no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Ctrl-C ends the command; Tune would return instead, as if the trials it broke off had been stopped by their scheduler.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # SIGTERM to a whole job reaches Ray's processes, too: a driver that heard of it 1 s later would be ended by their loss.
    "RAY_get_check_signal_interval_milliseconds": "50",
    # Trials of several workers: seconds less at their start and end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
if "ray" not in sys.modules:
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
