"""Compute runs in the process of a test."""

from typing import Any

from tiekd.config import ExecutionConfig, RunConfig
from tiekd.distill.preflight import ready_record
from tiekd.distill.run import execute
from tiekd.distill.runtime import LocalRuntime
from tiekd.store.run_store import RunRecord, RunStore


def compute(config: RunConfig, store: RunStore, execution: ExecutionConfig | None = None, display: Any = None) -> RunRecord:
    """Compute a run unless the store holds its result, and return its record."""
    record = ready_record(config, store)
    execute(config, record, lambda: LocalRuntime(execution or config.execution, record, display))
    return record
