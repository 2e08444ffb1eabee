"""Ray Train's workers in the placement group of their Tune trial. All that is touched of Ray Train's inside is touched here.

Train reserves a placement group of its own. Where trials fill the machine that one waits for ever beside the trial's, and when
the controller is killed it is left behind, with nobody to remove it on a cluster without a dashboard. The trial's is reserved
as a whole before the trial starts; when the trial ends, in whatever way, Tune removes it with all processes in it.
"""

from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, RayTrainCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle

# The second starts one more process for each trial, which would hand out Ray's datasets.
NOT_NEEDED = (PlacementGroupCleanerCallback, DatasetsCallback)


class TrialTrainer(TorchTrainer):
    """A `TorchTrainer` for use in a trial whose bundles are those of its workers."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, NOT_NEEDED)] + [PlaceInTrial()]


class PlaceInTrial(ControllerCallback):
    """Tells the controller's process, which serves this run alone, how to place workers."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        TrainController.worker_group_cls = TrialWorkerGroup


class TrialWorkerGroup(WorkerGroup):
    """Train's worker group, in the placement group that its controller runs in."""

    def _create_placement_group(self, *context: Any) -> "TrialPlacementGroup":
        return TrialPlacementGroup(ray.util.get_current_placement_group())


class TrialPlacementGroup(DefaultPlacementGroupHandle):
    def shutdown(self) -> None:
        """Nothing: the group is the trial's."""
