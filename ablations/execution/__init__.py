"""Running cells on Ray: clusters, trials, recovery from failures. Sets Ray's environment variables before Ray is imported."""

import os
import sys

READ_WHEN_USED = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Epochs without validation and failed trials report no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Ctrl-C must end the command. Tune's own handler would return as if the scheduler had stopped the interrupted trials.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Save seconds at the start and the end of trials with several workers.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
# If they were set after the import, Ray's processes would have other settings than the driver.
READ_AT_IMPORT = {
    "RAY_AUTH_MODE": "token",  # the default, but without a warning at every start
    # A SIGTERM to a whole job also reaches Ray's processes. With Ray's default of 1 s, their loss would end the driver before
    # it handles the signal.
    "RAY_get_check_signal_interval_milliseconds": "50",
}
GIVEN_VARIABLES = [name for name in os.environ if name.startswith("RAY_")]  # by the user: Ray sets more when it is imported
for _name, _value in (READ_WHEN_USED if "ray" in sys.modules else READ_WHEN_USED | READ_AT_IMPORT).items():
    os.environ.setdefault(_name, _value)
