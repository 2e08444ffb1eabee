"""Runtime of a single-worker trial: the local runtime, which also reports each epoch to Ray Tune."""

from typing import Any

from ablations.planning.search_point import ReportFn
from tiekd.config import RunConfig
from tiekd.distill.runtime import LocalRuntime, MetricRow
from tiekd.store.run_store import RunRecord


class TuneRuntime(LocalRuntime):
    """`LocalRuntime` in the trial's own process; passes every epoch except the last to `report_epoch`."""

    def __init__(self, config: RunConfig, record: RunRecord, report_epoch: ReportFn):
        super().__init__(config.execution, record)
        self._run_id, self._epochs, self._report_epoch = record.run_id, config.optim.epochs, report_epoch

    def report(self, epochs: list[MetricRow], state: dict[str, Any]) -> None:
        super().report(epochs, state)
        # A scheduler may stop the trial inside `report_epoch`, so the store is written first. The last epoch is reported with
        # the run's outcome: otherwise a trial could be stopped when its work is complete but its result is not yet recorded.
        if len(epochs) < self._epochs:
            spent = sum(row["seconds"] for row in epochs)
            self._report_epoch({"run_id": self._run_id, "device_seconds": spent, **epochs[-1]})
