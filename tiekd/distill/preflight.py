"""Identify a run, and check that it can start. Does not import PyTorch if the network is a preset."""

from collections.abc import Hashable

from tiekd.config import RunConfig
from tiekd.data import check_inputs, input_digests, inputs_key, open_frames
from tiekd.errors import UserError
from tiekd.inference.protocols import check_protocol
from tiekd.store.run_store import RunRecord, RunStore

METHOD_VERSION = "3"  # raised by hand when the same config would give other numbers


def run_id_of(config: RunConfig) -> str:
    """The run's identity: a hash of what is computed, the content of its inputs, and METHOD_VERSION.

    Raises UserError if an input is missing.
    """
    return RunIds()(config)


class RunIds:
    """`run_id_of` for many runs at one time: looks once at inputs that runs share."""

    def __init__(self) -> None:
        self._digests: dict[Hashable, dict[str, str]] = {}

    def __call__(self, config: RunConfig) -> str:
        key = inputs_key(config)
        if key not in self._digests:
            self._digests[key] = input_digests(config)
        return config.fingerprint({**self._digests[key], "method_version": METHOD_VERSION})


def ready_record(config: RunConfig, store: RunStore) -> RunRecord:
    """Return the record of a run in a store, whether it exists or not. Raises UserError like `check_ready`."""
    check_ready(config)
    return store.run(run_id_of(config))


def check_ready(config: RunConfig) -> None:
    """Raise UserError unless the inputs and weights exist, the network can be built and trained, and the protocol fits."""
    if not config.student.is_preset:
        from tiekd.models.registry import check_network  # planning should not import PyTorch

        check_network(config)
    check_inputs(config)
    check_protocol(config)
    n_frames = len(open_frames(config.data, "train"))
    if n_frames < config.execution.workers:
        raise UserError(f"execution.workers: each needs a training frame, got {config.execution.workers} for {n_frames} frames")
    if has_batch_of_one(config):
        from tiekd.models.registry import check_batch_of_one

        check_batch_of_one(config)


def has_batch_of_one(config: RunConfig) -> bool:
    """Whether the run trains on one frame at a time, which some networks do not support."""
    return config.optim.batch_size == 1 or len(open_frames(config.data, "train")) == 1
