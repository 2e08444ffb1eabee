"""Ray Train's workers in the placement group of their Tune trial.

Ray Train reserves a placement group for its workers and has no public option to use an existing one. If trials fill the
cluster, that second group waits forever beside the trial's; if the controller is killed, it is left behind. The trial's own
group is reserved as a whole before the trial starts, and Tune removes it, with all processes in it, however the trial ends.
"""

from typing import Any

import ray
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback, RayTrainCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2.torch.torch_trainer import TorchTrainer

# Each starts one more process per trial: to remove a placement group, which Tune does, and to serve Ray datasets.
UNUSED_CALLBACKS = (PlacementGroupCleanerCallback, DatasetsCallback)


class TrialTrainer(TorchTrainer):
    """A `TorchTrainer` that runs its workers in the bundles of the trial that it is called in."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, UNUSED_CALLBACKS)] + [PlaceInTrial()]


class PlaceInTrial(ControllerCallback):
    """Replaces the worker group's class in the controller's process, which serves this run only."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        TrainController.worker_group_cls = TrialWorkerGroup


class TrialWorkerGroup(WorkerGroup):
    """Train's worker group, in the placement group that its controller runs in."""

    def _create_placement_group(self, *context: Any) -> "TrialPlacementGroup":
        group = ray.util.get_current_placement_group()
        assert group, "the controller runs outside of a Tune trial"
        return TrialPlacementGroup(group)


class TrialPlacementGroup(DefaultPlacementGroupHandle):
    def shutdown(self) -> None:
        """Do nothing: Tune removes the trial's group."""
