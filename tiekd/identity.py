"""What makes two runs the same. Without PyTorch, so that a study that is done is told at once."""

from tiekd.config import RunConfig
from tiekd.data import input_digests

METHOD_VERSION = "2"  # raised by hand when the same config would give other numbers


def run_id_of(config: RunConfig) -> str:
    """The run's identity: what is computed, the digests of what it reads, and the method's version.

    Raises UserError when an input is missing.
    """
    return config.fingerprint({**input_digests(config), "method_version": METHOD_VERSION})
