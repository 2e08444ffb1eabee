"""Labels of metrics, and the columns of runs.parquet and tables.parquet with their types."""

from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from tiekd.config import RunConfig
from tiekd.config.labels import LABELS, METRICS
from tiekd.store.run_status import STATES as STORED_STATES

METRIC_LABELS = {
    "abs_rel": "Abs Rel",
    "sq_rel": "Sq Rel",
    "rmse": "RMSE",
    "rmse_log": "RMSE log",
    "log10": "log10",
    "silog": "SILog",
    "delta1": "δ1",
    "delta2": "δ2",
    "delta3": "δ3",
}
assert tuple(METRIC_LABELS) == METRICS
LABELLED = "data.labelled"
MAIN_METRIC = "abs_rel"  # the metric that is tested against the baseline and drawn
DIGITS = 4
PRUNED = "pruned"  # the state of a run that a search has ended early; it is missing in the store
STATES = (*(state for state in STORED_STATES if state != "missing"), PRUNED, "missing")

_HEAD = {
    "run_id": "string",
    "study": "string",
    "state": "string",
    "cause": "string",
    **dict.fromkeys(LABELS, "string"),
    "seed": "Int64",
    "protocol": "string",
    "n_images": "Int64",
    **dict.fromkeys(METRICS, "float64"),
}


def setting_types(model: type[BaseModel] = RunConfig, prefix: str = "") -> dict[str, str]:
    """The pandas type of every setting by its dotted path; lists are written as JSON."""
    types: dict[str, str] = {}
    for name, field in model.model_fields.items():
        kind = _kind(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            types |= setting_types(kind, f"{prefix}{name}.")
        else:
            types[f"{prefix}{name}"] = _pandas_type(kind)
    return types


def _kind(annotation: Any) -> Any:
    """The type of a setting's values other than None and, for a number, `auto`; float for an integer or a float."""
    choices = [choice for choice in get_args(annotation) if choice not in (NoneType, Literal["auto"])]
    kinds = choices if len(choices) < len(get_args(annotation)) else [annotation]
    kinds = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]
    return float if set(kinds) == {int, float} else kinds[0]


def _pandas_type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        annotation = type(get_args(annotation)[0])
    return {int: "Int64", float: "float64", bool: "boolean"}.get(annotation, "string")


SETTING_TYPES = setting_types()
_TAIL = {"network": "string", "target_floor": "float64", "device_seconds": "float64"}
RUN_TYPES = {**_HEAD, **{p: t for p, t in SETTING_TYPES.items() if p not in _HEAD}, **_TAIL}

# The columns of tables.parquet: TABLE_KEYS, the factors of the studies, TABLE_VALUES.
TABLE_KEYS = ("table", *LABELS)
_INTERVALS = [f"{of}images_ci_{end}" for of in ("", "baseline_") for end in ("low", "high")]
COSTS = ("parameters", "macs", "milliseconds", "peak_bytes", "device")
TABLE_VALUES = (
    *("metric", "mean", "std", "n_seeds", "ci_low", "ci_high", "p_value", "published", "difference", "protocol", "state"),
    *("run_ids", "p_holm", "baseline_difference", "baseline_n_seeds", "baseline_ci_low", "baseline_ci_high", *_INTERVALS),
    *("n_groups", "n_planned", "detail", "target_floor", *COSTS),
)
TABLE_COLUMNS = frozenset({*TABLE_KEYS, *TABLE_VALUES})
