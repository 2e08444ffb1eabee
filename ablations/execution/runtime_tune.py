"""The loop inside a Tune trial: the local runtime, with each epoch also told to Tune."""

from typing import Any

from torch import Tensor, nn

from ablations.planning.search_point import ReportFn
from tiekd.distill.runtime import LocalRuntime, Row


class TuneRuntime:
    """One worker, in the trial's own process; `tell` hears of each epoch but the last."""

    def __init__(self, local: LocalRuntime, run_id: str, epochs: int, report: ReportFn):
        self._local, self._run_id, self._epochs, self._report = local, run_id, epochs, report
        self.device, self.rank, self.world_size = local.device, local.rank, local.world_size

    def wrap(self, student: nn.Module) -> nn.Module:
        return self._local.wrap(student)

    def all_sum(self, tensor: Tensor) -> Tensor:
        return self._local.all_sum(tensor)

    def gather(self, rows: list[Row]) -> list[Row]:
        return self._local.gather(rows)

    def resume(self) -> dict[str, Any] | None:
        return self._local.resume()

    def step(self, step: int, steps: int) -> None:
        self._local.step(step, steps)

    def report(self, epochs: list[Row], state: dict[str, Any]) -> None:
        self._local.report(epochs, state)
        # A scheduler may end the trial inside this call, so the store comes first; and the last epoch is left to the run's
        # outcome, lest a trial be stopped with all its work done and nothing to show.
        if len(epochs) < self._epochs:
            spent = sum(row["seconds"] for row in epochs)
            self._report({"run_id": self._run_id, "device_seconds": spent, **epochs[-1]})

    def lost(self, error: Exception) -> bool:
        return self._local.lost(error)
