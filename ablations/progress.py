"""What a person sees while a study runs."""

from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class StudyProgress(Callback):
    """One bar over all epochs of all trials on a terminal, and one line per finished trial everywhere."""

    def __init__(self, console: Console, trials: int, epochs: int, names: Callable[[dict], str], objective: str):
        self._console, self._names, self._objective = console, names, objective
        self._trials, self._epochs = trials, epochs
        self._reached: dict[str, int] = {}
        self._finished = self._failed = 0
        self._bar: Progress | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; a live display does not travel."""
        return {**self.__dict__, "_console": None, "_bar": None, "_names": None}

    def setup(self, **info: Any) -> None:
        if not self._console.is_terminal:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task(self._headline(0), total=self._trials * self._epochs)
        self._bar.start()

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        self._reached[trial.trial_id] = result.get("epoch", 0)
        self._refresh(trials)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        result = trial.last_result or {}
        state = result.get("state", "pruned")
        self._finished += 1
        self._failed += state in ("failed", "diverged", "constant")
        value = result.get(self._objective)
        self._line(state, trial, f"{self._objective} {value:.4f}" if value is not None else "", result.get("cause", ""))
        self._reached[trial.trial_id] = self._epochs
        self._refresh(trials)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._finished += 1
        self._failed += 1
        self._line("failed", trial, "", "the trial's process died")
        self._refresh(trials)

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        if self._bar:
            self._bar.stop()

    def _line(self, state: str, trial: Any, value: str, cause: str) -> None:
        colour = {"done": "green", "pruned": "yellow"}.get(state, "red")
        words = [f"[{colour}]{state:8}[/]", escape(self._names(trial.config)), value, escape(cause)]
        self._console.print("  ".join(word for word in words if word), highlight=False, soft_wrap=True)

    def _refresh(self, trials: list) -> None:
        if self._bar:
            running = sum(trial.status == "RUNNING" for trial in trials)
            self._bar.update(self._task, completed=sum(self._reached.values()), description=self._headline(running))

    def _headline(self, running: int) -> str:
        failed = f", [red]{self._failed} failed[/]" if self._failed else ""
        return f"{self._finished}/{self._trials} done, {running} running{failed}"
