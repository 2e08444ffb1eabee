"""Check that a run can start. Does not import PyTorch if the network is a preset."""

from tiekd.config import RunConfig
from tiekd.data import check_inputs
from tiekd.data.inputs import one_look, open_teacher, run_id_of, train_frames
from tiekd.errors import UserError
from tiekd.inference.protocols import check_protocol
from tiekd.store.run_store import RunRecord, RunStore


@one_look()
def ready_record(config: RunConfig, store: RunStore) -> RunRecord:
    """Return the record of a run in a store, whether it exists or not.

    Raises UserError like `check_ready`, and if the teacher's maps have not been made yet or differ from their manifest.
    """
    check_ready(config)
    if config.reads_teacher and not config.execution.packed:
        open_teacher(config).check_content(train_frames(config).keys)
    return store.run(run_id_of(config))


@one_look()
def check_ready(config: RunConfig) -> None:
    """Raise UserError unless the inputs and weights exist, the network can be built and trained, and the protocol fits."""
    if not config.student.is_preset:
        from tiekd.models.registry import check_network  # planning should not import PyTorch

        check_network(config)
    check_inputs(config)
    check_protocol(config)
    n_frames = len(train_frames(config))
    if n_frames < config.execution.workers:
        raise UserError(f"execution.workers: each needs a training frame, got {config.execution.workers} for {n_frames} frames")
    if has_batch_of_one(config):
        from tiekd.models.registry import check_batch_of_one

        check_batch_of_one(config)


def has_batch_of_one(config: RunConfig) -> bool:
    """Whether the run trains on one frame at a time, which some networks do not support."""
    return config.optim.batch_size == 1 or len(train_frames(config)) == 1
