"""Distill one student in this process: train a teacher, export its depth maps, train a student on them.

    python examples/distill_a_run.py

Everything is tiny, so that it takes seconds; the results are in demo/examples.
"""

from pathlib import Path

import tiekd
from tiekd.deploy.export_maps import NetworkTeacher, export_maps, trained_weights
from tiekd.distill.preflight import ready_record
from tiekd.distill.run import execute
from tiekd.distill.runtime import LocalRuntime
from tiekd.store.run_store import RunStore

OUT = Path("demo/examples")
SMALL = {
    "data": {
        "dataset": "synthetic-outdoor",
        "train_frames": 8,
        "test_frames": 4,
        "frame_size": [64, 96],
        "train_crop": [48, 64],
    },
    "optim": {"epochs": 2, "batch_size": 4, "lr": 3e-3},
    "execution": {"store": str(OUT / "store")},
}


def train(config: tiekd.RunConfig) -> None:
    """Compute a run unless its store already has it, and print its outcome."""
    record = ready_record(config, RunStore(config.execution.store))
    status = execute(config, record, lambda: LocalRuntime(config.execution, record))
    print(f"{config.method} ({config.student.name}): {status.state} after {status.device_seconds:.1f} s")


def main() -> None:
    teacher = tiekd.RunConfig.model_validate(
        SMALL | {"student": {"name": "small"}, "loss": {"name": "si", "target": "ground_truth"}}
    )
    train(teacher)
    network = NetworkTeacher(trained_weights(teacher), flip_tta=True, device="cpu")
    export_maps(teacher, network, OUT / "maps", name="example")

    for sigma in (0.5, 1.0):  # m
        student = tiekd.RunConfig.model_validate(
            SMALL
            | {
                "teacher": {"name": "example", "maps": str(OUT / "maps")},
                "student": {"name": "tiny"},
                "loss": {"name": "tie_kd", "sigma": sigma},
            }
        )
        train(student)


if __name__ == "__main__":
    main()
