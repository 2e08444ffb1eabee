"""A store of 9 cells x 2 seeds with made-up metrics; one run each is failed, diverged, constant and missing."""

from dataclasses import replace

import numpy as np
import pandas as pd

from reports.loading.schema import METRICS
from tiekd.config import RunConfig, build
from tiekd.config.documents import with_values
from tiekd.deploy.profile_records import Cost, network_id, network_name, write_cost
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

EPOCHS = 3
BASE = {
    "data": {"dataset": "kitti", "root": "kitti"},
    "teacher": {"name": "adabins", "maps": "maps/adabins"},
    "optim": {"epochs": EPOCHS},
}
GROUND_TRUTH = {"loss.name": "si", "loss.target": "ground_truth"}
CELLS = [
    GROUND_TRUTH,
    {"loss.name": "ssim"},
    {"loss.name": "mse"},
    {"loss.name": "ssim_si"},
    {"loss.name": "l_dpm"},
    {"loss.name": "tie_kd", "loss.temperature": 0.5},
    {"loss.name": "tie_kd", "loss.temperature": 1.0},
    {"loss.name": "tie_kd", "loss.temperature": 2.0},
    {**GROUND_TRUTH, "student.name": "resnet18"},
]
# Runs without a result, by (cell, seed)
LOST = {
    (1, 1): Status("failed", "RuntimeError: a | b & 100% of C_1"),
    (2, 0): Status("diverged", "loss is inf at step 7"),
    (4, 1): Status("constant", "every prediction is one depth all over"),
}
MISSING = (8, 1)


def metrics_of(cell: int, seed: int) -> dict[str, float]:
    """Made-up metrics, distinct for each cell, seed and metric."""
    return {name: 0.06 + 0.002 * cell + 0.0005 * seed**2 + 0.1 * position for position, name in enumerate(METRICS)}


def epochs_of(cell: int, seed: int) -> pd.DataFrame:
    """Epoch 1 is not validated."""
    rows = []
    for epoch in range(1, EPOCHS + 1):
        row = {"epoch": epoch, "step": 10 * epoch, "lr": 1e-3, "loss": 1 / epoch, "part_si": 0.5 / epoch, "seconds": 2.0}
        rows.append(row | {k: v + 0.01 * (EPOCHS - epoch) if epoch > 1 else np.nan for k, v in metrics_of(cell, seed).items()})
    return pd.DataFrame(rows)


def images_of(cell: int, seed: int) -> pd.DataFrame:
    """Three images, the last without valid ground truth."""
    rows = [
        {"image": f"drive/{i}.png", "group": "drive", "n_valid": 0 if i == 2 else 100}
        | {k: np.nan if i == 2 else v for k, v in metrics_of(cell, seed).items()}
        | {"depth_min": 1.0, "depth_max": 70.0}
        for i in range(3)
    ]
    return pd.DataFrame(rows)


def write_run(store: RunStore, config: RunConfig, status: Status, cell: int) -> str:
    """Write a run's folder as training does; a constant run has a summary with metrics, which no table may show."""
    run_id = config.fingerprint()
    record = store.run(run_id)
    record.write_config(config)
    origin = {"git_commit": "abc123", "dirty": "", "versions": {"torch": "2.9"}, "inputs": {"test": "d1"}}
    record.write_json("provenance.json", origin | {"lock": {"constraints.txt": "ab12", "torch": "2.9"}})
    record.write_table("epochs.parquet", epochs_of(cell, config.seed))
    if status.state in ("done", "constant"):
        record.write_table("images.parquet", images_of(cell, config.seed))
        summary = {"run_id": run_id, "protocol": config.evaluation.protocol, "n_images": 3, "n_images_without_ground_truth": 1}
        record.write_json("summary.json", summary | {"metrics": metrics_of(cell, config.seed)})
    record.write_status(replace(status, device_seconds=60.0))
    return run_id


def fill(
    store: RunStore, cells: list[dict], seeds: int, study: dict, lost: dict | None = None, missing: tuple | None = None
) -> list[dict]:
    """Write a study and its runs, with `lost` and `missing` ones by (cell, seed); return the study's cells."""
    planned = []
    for number, changes in enumerate(cells):
        for seed in range(seeds):
            config = build(with_values(BASE, {**changes, "seed": seed}))
            if (number, seed) != missing:
                write_run(store, config, (lost or {}).get((number, seed), Status("done")), number)
            factors = {key: value for key, value in changes.items() if key != "loss.target"}
            planned.append({"run_id": config.fingerprint(), "config": config.document(), "factors": factors, "seed": seed})
    store.write_study(study["name"], {"study": study, "cells": planned})
    return planned


def write_costs(store: RunStore, cells: list[dict], costs: list[int], device: str = "cpu") -> None:
    """Store the cost of each cell's network: the same number of parameters, MACs and milliseconds."""
    for changes, cost in zip(cells, costs, strict=True):
        config = build(with_values(BASE, changes))
        name, size = network_name(config), [352, 1216]
        milliseconds = (float(cost), cost - 1.0, cost + 1.0)  # median and quartiles
        write_cost(store, Cost(network_id(config), name, size, "fp32", device, cost, cost, *milliseconds, 30, 9))
