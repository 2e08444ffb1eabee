"""Whether a run can begin, as far as that shows before its work. Without PyTorch where the network is a preset's."""

from tiekd.config import RunConfig
from tiekd.data import check_inputs, input_digests
from tiekd.inference.protocols import check_protocol


def check_ready(config: RunConfig) -> None:
    """Raise UserError unless everything that a run will need is there: frames, maps, a network, a protocol that fits."""
    if not config.student.is_preset:
        from tiekd.models.registry import check_network  # planning does not wait for PyTorch

        check_network(config)
    check_inputs(config)
    check_protocol(config)


METHOD_VERSION = "2"  # raised by hand when the same config would give other numbers


def run_id_of(config: RunConfig) -> str:
    """The run's identity: what is computed, the digests of what it reads, and the method's version.

    Raises UserError when an input is missing.
    """
    return config.fingerprint({**input_digests(config), "method_version": METHOD_VERSION})
