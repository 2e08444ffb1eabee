"""The schedulers of a search. Each acts on the first objective: per epoch of the first seed, then after each further seed."""

import math
import pkgutil

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from ablations.planning.search_config import SCHEDULERS, SearchConfig

TIME_ATTR = "epoch"  # in a trial's results: epochs computed, over all seeds


class MedianStopping(MedianStoppingRule):
    """Tune's rule, for trials whose last result may lack the metric because they failed or diverged."""

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict) -> None:
        if self._metric in result:
            super().on_trial_complete(tune_controller, trial, result)


def build_asha(search: SearchConfig, max_epochs: int) -> TrialScheduler:
    return AsyncHyperBandScheduler(
        time_attr=TIME_ATTR,
        metric=search.objective,
        mode=search.modes[0],
        max_t=max_epochs,
        grace_period=min(search.grace_epochs, max_epochs),
        reduction_factor=search.reduction_factor,
    )


def build_median(search: SearchConfig, max_epochs: int) -> TrialScheduler:
    return MedianStopping(
        time_attr=TIME_ATTR,
        metric=search.objective,
        mode=search.modes[0],
        grace_period=min(search.grace_epochs, max_epochs),
        # Otherwise it pauses trials while there are too few to compare.
        min_time_slice=math.inf,  # type: ignore[arg-type]  # no int is large enough: a first pause is at time - (-inf)
    )


def build_fifo(search: SearchConfig, max_epochs: int) -> TrialScheduler:
    return FIFOScheduler()


def build_scheduler(search: SearchConfig, epochs: int) -> TrialScheduler:
    """Build the scheduler of a search whose runs have `epochs` epochs each."""
    scheduler: TrialScheduler = pkgutil.resolve_name(SCHEDULERS[search.scheduler].build)(search, epochs * len(search.seeds))
    return scheduler
