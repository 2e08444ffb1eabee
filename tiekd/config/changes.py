"""The settings that a command reads of a trained network's config, or of a data set's; changes of others are refused."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, get_args

from tiekd.config.documents import flatten
from tiekd.config.run_config import RunConfig
from tiekd.errors import UserError

PREDICTION = ("evaluation.flip_tta", "execution.device", "optim.precision")
TEST_FRAMES = (
    "data.dataset",
    "data.root",
    "data.test_split",
    "data.test_frames",
    "data.frame_size",
    "data.scene_seed",
    "data.train_crop",  # which must fit into data.frame_size
    "evaluation.protocol",
)
NETWORK_EVALUATION = (*PREDICTION, *TEST_FRAMES, "execution.data_workers", "optim.batch_size")
MAP_EVALUATION = (*TEST_FRAMES, "data.min_depth", "data.max_depth")
MAP_IMPORT = ("data.*",)
MAP_EXPORT = ("data.*", "evaluation.flip_tta", "execution.cpus_per_worker", "execution.device")


def check_changes(changes: Mapping[str, Any], read: Sequence[str], reader: str) -> dict[str, Any]:
    """Return the changed settings by dotted path. Raises UserError for one that is not in `read`, which may have wildcards.

    reader: who reads these settings, for the message. The others belong to the weights, or play no part. An unknown setting is
    left to the config to refuse.
    """
    changed = flatten(changes)
    for path in changed:
        if _is_setting(path) and not any(fnmatchcase(path, pattern) for pattern in read):
            raise UserError(f"{path}: {reader} only reads {', '.join(read)}")
    return changed


def _is_setting(path: str) -> bool:
    section, _, name = path.partition(".")
    field = RunConfig.model_fields.get(section)
    if field is None or not name:
        return field is not None
    model, *_ = get_args(field.annotation) or (field.annotation,)  # teacher may be None
    return name in getattr(model, "model_fields", {})
