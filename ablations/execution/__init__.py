"""Running cells on Ray: clusters, trials, recovery from failures. Sets Ray's environment variables before Ray is imported."""

import os
import subprocess
import sys

from tiekd.errors import UserError, shorten

READ_WHEN_USED = {
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
USED = {"RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_CLIENT_MODE", "RAY_TMPDIR"}  # any text
AUTH_MODES = ("token", "disabled", "k8s")
GIVEN_VARIABLES = [name for name in os.environ if name.startswith("RAY_")]  # by the user: Ray sets more when it is imported
for _name, _value in (READ_WHEN_USED if "ray" in sys.modules else READ_WHEN_USED | READ_AT_IMPORT).items():
    os.environ.setdefault(_name, _value)


def check_variables() -> None:
    """Raise UserError for a variable at which Ray would end this process, mostly by a segmentation fault at its import.

    Only Ray knows which values its hundreds of variables may have. Therefore a process imports it first, if there are any.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() not in AUTH_MODES:
        raise UserError(f"RAY_AUTH_MODE={mode}: unknown; valid: {', '.join(AUTH_MODES)}")
    ours = READ_WHEN_USED | READ_AT_IMPORT
    given = [name for name in GIVEN_VARIABLES if name not in USED and os.environ.get(name) not in (None, ours.get(name))]
    if "ray" in sys.modules or not given or _imports_ray(given):
        return
    wrong = next((name for name in given if not _imports_ray([name])), None)
    named = f"{wrong}={shorten(os.environ[wrong])}" if wrong else ", ".join(given)
    raise UserError(f"{named}: Ray ends at this value when it starts; valid: what Ray can read, or unset the variable")


def _imports_ray(names: list[str]) -> bool:
    """Whether a process with these of Ray's variables can import it."""
    environment = {name: value for name, value in os.environ.items() if name in names or not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", "import ray"], env=environment, capture_output=True, check=False)
    return done.returncode == 0
