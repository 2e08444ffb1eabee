"""The JSON documents and tables of a run store, checked when they are read.

Unknown keys and columns are kept: another version may have written them.
"""

import json
from typing import Any, Generic, NotRequired, TypeVar

import pyarrow as pa
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from tiekd.config.labels import METRICS
from tiekd.store.run_status import Attempt, Status

T = TypeVar("T")
_any_keys = with_config(ConfigDict(extra="allow"))
Metrics = dict[str, float | None]
EPOCH_COLUMNS = {"epoch": pa.int64(), "step": pa.int64(), **dict.fromkeys(("lr", "loss", "seconds", *METRICS), pa.float64())}
IMAGE_COLUMNS = {"image": pa.string(), "group": pa.string(), "n_valid": pa.int64(), **dict.fromkeys(METRICS, pa.float64())}


class Schema(Generic[T]):
    """The type of a JSON document."""

    def __init__(self, kind: Any):
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)

    def parse(self, content: bytes) -> T:
        """Parse a document. Raises ValueError if it is not valid JSON, which has no NaN, or not of this type."""
        value = json.loads(content, parse_constant=_refuse_constant)
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the document"
            raise ValueError(f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


@_any_keys
class Summary(TypedDict):
    """summary.json: the results of a run."""

    metrics: Metrics
    protocol: NotRequired[str]
    n_images: NotRequired[int]
    n_images_without_ground_truth: NotRequired[int]
    floor: NotRequired[Metrics]  # of L_DPM, see tiekd/distill/target_floor.py
    also: NotRequired[list[str]]  # the protocols of protocols.parquet
    note: NotRequired[str]  # that papers evaluate on another number of images


@_any_keys
class Provenance(TypedDict):
    """provenance.json: the code, libraries, machine and inputs of a run."""

    git_commit: NotRequired[str]
    dirty: NotRequired[str]
    versions: NotRequired[dict[str, str]]
    lock: NotRequired[dict[str, str]]
    hardware: NotRequired[dict[str, Any]]
    inputs: NotRequired[dict[str, str]]
    device_seconds: NotRequired[float]
    damaged: NotRequired[dict[str, str]]  # files of the run that could not be read and were made again


@_any_keys
class Efficiency(TypedDict):
    """efficiency.json: the measured cost of a run's student."""

    milliseconds: float
    parameters: int


@_any_keys
class _Optim(TypedDict):
    epochs: int


@_any_keys
class _Loss(TypedDict):
    target: str | None  # None with parts


@_any_keys
class _Execution(TypedDict):
    workers: int


@_any_keys
class CellConfig(TypedDict):
    """A run config of any version, with the settings that are used without building it."""

    data: dict[str, Any]
    optim: _Optim
    loss: _Loss
    execution: _Execution


@_any_keys
class CellDocument(TypedDict):
    """One cell of a study."""

    run_id: str | None  # None while an input is missing
    config: CellConfig
    factors: NotRequired[dict[str, Any]]
    missing: NotRequired[str]
    infeasible: NotRequired[str]  # the constraints of a search that its point violates


@_any_keys
class _Search(TypedDict):
    objectives: NotRequired[list[str]]


@_any_keys
class LaunchedStudy(TypedDict):
    """A study document as it was launched."""

    name: NotRequired[str]
    kind: NotRequired[str]
    title: NotRequired[str | None]
    base: NotRequired[dict[str, Any] | None]
    search: NotRequired[_Search | None]


@_any_keys
class SequentialRow(TypedDict):
    """The test of one row of a study with seeds until decided; numbers are None before the first look."""

    run_ids: list[str | None]
    n_seeds: int
    state: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None


@_any_keys
class SequentialDocument(TypedDict):
    """How a study with seeds until decided stands: the settings of the rule, and its rows."""

    rule: dict[str, Any]
    rows: list[SequentialRow]


@_any_keys
class StudyDocument(TypedDict):
    """study.json: a study as it was launched, the argv of each launch, its cells, the runs that train its teachers."""

    study: LaunchedStudy
    commands: NotRequired[list[list[str]]]
    cells: list[CellDocument]
    teachers: NotRequired[list[str]]
    sequential: NotRequired[SequentialDocument]


@_any_keys
class Findings(TypedDict):
    """findings.json: the results of a search."""

    importance: NotRequired[dict[str, float]]


def conform(table: pa.Table, columns: dict[str, pa.DataType], prefix: str = "") -> pa.Table:
    """The known columns of a stored table with their types; columns that begin with `prefix` are numbers, others are dropped.

    Raises an Arrow error or KeyError if the first known column is missing or a value has another type.
    """
    first = next(iter(columns))
    table.column(first)
    types = {
        name: columns.get(name, pa.float64() if prefix and name.startswith(prefix) else None) for name in table.column_names
    }
    schema = pa.schema([(name, kind) for name, kind in types.items() if kind is not None])
    return table if table.schema.equals(schema) else table.select(schema.names).cast(schema)


ANY = Schema[Any](Any)
STATUS = Schema[Status](Status)
ATTEMPT = Schema[Attempt](Attempt)
SUMMARY = Schema[Summary](Summary)
PROVENANCE = Schema[Provenance](Provenance)
STUDY = Schema[StudyDocument](StudyDocument)
FINDINGS = Schema[Findings](Findings)
EFFICIENCY = Schema[Efficiency](Efficiency)
