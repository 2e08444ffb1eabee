"""What ends a trial that does badly. Each acts on the first objective, epoch by epoch of the first seed, then seed by seed."""

import math

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from ablations.planning.study import SearchConfig

TIME_ATTR = "epoch"  # of a trial's results: epochs spent on it, over all seeds


class MedianStopping(MedianStoppingRule):
    """Tune's rule, which cannot read the end of a trial that has no number: diverged or failed."""

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict) -> None:
        if self._metric in result:
            super().on_trial_complete(tune_controller, trial, result)


def _asha(search: SearchConfig, epochs: int) -> TrialScheduler:
    return AsyncHyperBandScheduler(
        time_attr=TIME_ATTR,
        metric=search.objective,
        mode=search.modes[0],
        max_t=epochs,
        grace_period=min(search.grace_epochs, epochs),
        reduction_factor=search.reduction_factor,
    )


def _median(search: SearchConfig, epochs: int) -> TrialScheduler:
    return MedianStopping(
        time_attr=TIME_ATTR,
        metric=search.objective,
        mode=search.modes[0],
        grace_period=min(search.grace_epochs, epochs),
        min_time_slice=math.inf,  # or it would pause trials while there are too few to compare
    )


SCHEDULERS = {"none": lambda search, epochs: None, "asha": _asha, "median": _median}


def build_scheduler(search: SearchConfig, epochs: int) -> TrialScheduler | None:
    """The scheduler of a search whose runs have `epochs` epochs each."""
    return SCHEDULERS[search.scheduler](search, epochs * len(search.seeds))
