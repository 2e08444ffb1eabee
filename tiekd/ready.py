"""Whether a run can begin, as far as that shows before its work. Without PyTorch where the network is a preset's."""

from tiekd.config import RunConfig
from tiekd.data import check_inputs
from tiekd.protocols import check_protocol


def check_ready(config: RunConfig) -> None:
    """Raise UserError unless everything that a run will need is there: frames, maps, a network, a protocol that fits."""
    if not config.student.is_preset:
        from tiekd.heavy import import_networks  # for which planning does not wait

        import_networks()
        from tiekd.networks import check_network

        check_network(config)
    check_inputs(config)
    check_protocol(config)
