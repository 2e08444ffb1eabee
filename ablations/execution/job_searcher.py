"""The jobs of a launch behind Tune's searcher interface: each begins as soon as those that it needs are done."""

from typing import Any

from ray.tune.search import Searcher

from ablations.planning.jobs import JobQueue


class JobSearcher(Searcher):
    """Gives the jobs of a queue as trials with the parameter `job`."""

    def __init__(self, queue: JobQueue):
        super().__init__()
        self._queue = queue
        self._keys: dict[str, str] = {}  # by trial id

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray omits Searcher.FINISHED
        if self._queue.finished:
            return Searcher.FINISHED
        key = self._queue.begin()
        if key is None:
            return None
        self._keys[trial_id] = key
        return {"job": key}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: only the end of a job counts."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._queue.end(self._keys.pop(trial_id), not error and (result or {}).get("state") == "done")

    def __reduce__(self) -> tuple:
        """Pickle as an empty searcher: Tune saves its searcher, and nothing restores it."""
        return Searcher, ()

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the next launch plans afresh."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing."""
