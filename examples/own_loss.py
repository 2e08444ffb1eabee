"""Train with a loss of your own, without changing the package: define it, name it, use it.

    python examples/own_loss.py

The loss is known in this process only. docs/how-to/own-loss.md adds one to the package, for all commands.
"""

from torch import Tensor

import tiekd
from tiekd.config.specs import LOSSES, LossSpec
from tiekd.losses.combine import AllSum, WeightedTerm, masked_mean
from tiekd.models.prediction import Prediction


class L1Term:
    """Mean absolute error, m."""

    def __call__(self, prediction: Prediction, target: Tensor, valid: Tensor, all_sum: AllSum) -> Tensor:
        return masked_mean((prediction.depth - target).abs(), valid, all_sum)


def l1(config: tiekd.RunConfig) -> dict[str, WeightedTerm]:
    """The terms of the loss with their weights."""
    return {"l1": WeightedTerm(1.0, L1Term())}


LOSSES["l1"] = LossSpec(label="L1", build=f"{__name__}:l1", reads=())


def main() -> None:
    config = tiekd.RunConfig.model_validate(
        {
            "data": {
                "dataset": "synthetic-outdoor",
                "train_frames": 8,
                "test_frames": 4,
                "frame_size": [64, 96],
                "train_crop": [48, 64],
            },
            "student": {"name": "tiny"},
            "loss": {"name": "l1", "target": "ground_truth"},
            "optim": {"epochs": 2, "batch_size": 4, "lr": 3e-3},
        }
    )
    result = tiekd.distill(config)
    print(f"abs_rel {result.metrics['abs_rel']:.3f} on {len(result.images)} test images")


if __name__ == "__main__":
    main()
