"""Identify a run, and check that it can start. Does not import PyTorch if the network is a preset."""

from tiekd.config import RunConfig
from tiekd.data import check_inputs, input_digests
from tiekd.inference.protocols import check_protocol

METHOD_VERSION = "2"  # raised by hand when the same config would give other numbers


def run_id_of(config: RunConfig) -> str:
    """The run's identity: a hash of what is computed, the digests of its inputs, and METHOD_VERSION.

    Raises UserError if an input is missing.
    """
    return config.fingerprint({**input_digests(config), "method_version": METHOD_VERSION})


def check_ready(config: RunConfig) -> None:
    """Raise UserError unless the frames, teacher maps and weights exist, the network can be built and the protocol fits."""
    if not config.student.is_preset:
        from tiekd.models.registry import check_network  # planning should not import PyTorch

        check_network(config)
    check_inputs(config)
    check_protocol(config)
