"""Train Ultralytics' depth task and a student of this project on the same frames for the same CPU time, and score both alike.

    python benchmarks/peer.py FRAMES --peer-python PYTHON [--cpu-seconds 150] [--seeds 5] [--jobs 2] [--work FOLDER]

FRAMES is a folder of 7-Scenes; PYTHON is that of an environment with Ultralytics (AGPL), which this project does not need:

    python -m venv peer && peer/bin/pip install ultralytics

The frames, at 96 x 128 px, are written once, in the layout of Ultralytics' depth task, which the data set `folder` reads, too.
Both networks start from random weights and are trained with the default settings of their programs, in one thread. The number
of epochs is the largest that fits into the CPU seconds of a whole training process, from two short trainings of each.
Ultralytics' trainer fits the scale of its output on validation frames; here these are training frames, and its maps are scored
with and without it. All maps are scored as `tiekd evaluate --predictions` does. Prints Markdown; writes FOLDER/results.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from reports.tables.seed_statistics import sign_flip_p, summarize_seeds
from tiekd.config import RunConfig, build
from tiekd.data import open_frames
from tiekd.data.teacher_maps.external import ExternalMaps
from tiekd.inference.evaluate import evaluate_maps
from tiekd.metrics import mean_metrics

SIZE = (96, 128)
DEPTH_SCALE = 1000  # stored value at 1 m
SPLITS = ("train", "test")
MAX_DEPTH = 10.0
PATTERNS = {"images": "images/{split}/*.png", "depths": "depth/{split}/*.png", "depth_scale": DEPTH_SCALE}
THEIR_SETTINGS = ("imgsz=128", "rect=true", "batch=8")
SHORT = (1, 2)  # epochs of two trainings that tell the time of an epoch
METRICS = ("abs_rel", "rmse", "delta1")


class Trained(NamedTuple):
    cpu_seconds: float
    parameters: int
    maps: dict[str, Path]  # folders of the test frames' maps, by what was done to the output
    facts: dict[str, Any]


# -- the frames ------------------------------------------------------------------------------------------------------------


def source_config(root: Path) -> RunConfig:
    """The frames of one sequence of 7-Scenes, split by time as in the study `rgbd`."""
    folder = {
        "name": "7-scenes",
        "images": "**/frame-*.color.*",
        "depths": "**/frame-*.depth.png",
        "invalid": [65535],
        "split_by": "time",
        "split_gap": 0.1,
        "group_frames": 20,
    }
    return _config(root, folder)


def exported_config(root: Path) -> RunConfig:
    """The same frames as `export_frames` has written them."""
    return _config(root, {"name": "7-scenes", **PATTERNS})


def _config(root: Path, folder: dict[str, Any]) -> RunConfig:
    data = {"dataset": "folder", "root": str(root), "folder": folder, "frame_size": SIZE, "train_crop": SIZE}
    return build({"data": {**data, "max_depth": MAX_DEPTH}, "loss": {"name": "si", "target": "ground_truth"}})


def export_frames(config: RunConfig, out: Path) -> Path:
    """Write both splits in the layout of Ultralytics' depth task, without loss; returns its YAML file.

    Its `val` names the training frames: the test frames are not seen before they are scored.
    """
    for split in SPLITS:
        frames = open_frames(config.data, split)  # type: ignore[arg-type]
        for folder in ("images", "depth"):
            (out / folder / split).mkdir(parents=True)
        for index in range(len(frames)):
            frame = frames.load(index)
            millimetres = np.rint(frame.depth_gt * DEPTH_SCALE)
            assert millimetres.max() < 2**16, frames.keys[index]
            Image.fromarray(frame.image).save(out / "images" / split / f"{index:06d}.png")
            Image.fromarray(millimetres.astype(np.uint16)).save(out / "depth" / split / f"{index:06d}.png")
    described = {"path": str(out.absolute()), "train": "images/train", "val": "images/train", "nc": 1, "names": {0: "depth"}}
    file = out / "data.yaml"
    file.write_text(yaml.safe_dump(described | {"channels": 3, "depth_scale": DEPTH_SCALE, "max_depth": MAX_DEPTH}))
    return file


# -- the trainings ---------------------------------------------------------------------------------------------------------


def timed(command: Sequence[object], log: Path) -> float:
    """Run a command in one thread; returns its CPU seconds. Ends the benchmark, with the log's end, if it fails."""
    with log.open("w") as output:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{log}: exit code {process.returncode}: {log.read_text()[-500:]}")
    return usage.ru_utime + usage.ru_stime


def train_theirs(options: argparse.Namespace, data: Path, out: Path, epochs: int, seed: int) -> Trained:
    script = [options.peer_python, Path(__file__).with_name("peer_theirs.py")]
    out.mkdir(parents=True)
    words = [options.peer_model, epochs, seed, *THEIR_SETTINGS]
    seconds = timed([*script, "train", data / "data.yaml", out, *words], out / "train.log")
    timed([*script, "predict", data / "images/test", out], out / "predict.log")
    facts = json.loads((out / "facts.json").read_text())
    maps = {"as trained": out / "raw", "scale fitted on training frames": out / "calibrated"}
    return Trained(seconds, facts["parameters"], maps, facts)


def train_ours(options: argparse.Namespace, data: Path, out: Path, epochs: int, seed: int) -> Trained:
    document = exported_config(data).document() | {"seed": seed}
    document["student"] = {"name": options.student}
    document["optim"] = {"epochs": epochs, "batch_size": 8}
    document["evaluation"] = {"every": epochs, "flip_tta": False}
    document["execution"] = {"data_workers": 0, "device": "cpu", "store": str(out / "store")}
    out.mkdir(parents=True)
    config = out / "config.yaml"
    config.write_text(yaml.safe_dump(json.loads(json.dumps(document))))
    seconds = timed([sys.executable, "-m", "tiekd", "run", config], out / "train.log")
    (run,) = (out / "store/runs").iterdir()
    timed([sys.executable, __file__, "--predict", run, data / "images/test", out / "maps"], out / "predict.log")
    return Trained(seconds, json.loads((out / "maps/facts.json").read_text())["parameters"], {"as trained": out / "maps"}, {})


def predict_ours(run: Path, images: Path, out: Path) -> None:
    """Write the depth of each image in m as .npy, and the number of parameters."""
    import tiekd

    student = tiekd.load_student(run, device="cpu")
    out.mkdir()
    for file in sorted(images.iterdir()):
        np.save(out / f"{file.stem}.npy", student.predict(file).depth)
    (out / "facts.json").write_text(json.dumps({"parameters": sum(p.numel() for p in student.network.parameters())}))


TOOLS = {"theirs": train_theirs, "ours": train_ours}


def epochs_within(cpu_seconds: float, short: Sequence[float]) -> int:
    """How many epochs fit into the CPU seconds of a training process, from those of trainings of SHORT epochs."""
    each = (short[1] - short[0]) / (SHORT[1] - SHORT[0])
    return max(1, SHORT[0] + int((cpu_seconds - short[0]) / each))


def score(maps: Path, data: Path) -> dict[str, float]:
    """The metrics that `tiekd evaluate --predictions` prints for the maps of the test frames."""
    config = exported_config(data)
    frames = open_frames(config.data, "test")
    found = ExternalMaps([maps], config.data.dataset, frames.keys)
    found.check_headers(frames)
    return mean_metrics(list(evaluate_maps(found, config, frames, range(len(frames)))))


def main() -> None:
    if sys.argv[1:2] == ["--predict"]:
        return predict_ours(*map(Path, sys.argv[2:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=Path, help="a folder of 7-Scenes")
    parser.add_argument("--peer-python", required=True, help="python of an environment with Ultralytics")
    parser.add_argument("--peer-model", default="yolo26n-depth.yaml", help="its model file")
    parser.add_argument("--student", default="lite0", help="name of our student")
    parser.add_argument("--cpu-seconds", type=float, default=150, help="of one training process")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--work", type=Path, help="new folder for what is written [default: a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(options, options.work or Path(temporary))


def compare(options: argparse.Namespace, work: Path) -> None:
    data = work / "data"
    export_frames(source_config(options.frames), data)

    def train(tool: str, epochs: int, seed: int) -> Trained:
        return TOOLS[tool](options, data, work / f"{tool}-{epochs}-epochs-seed-{seed}", epochs, seed)

    with ThreadPoolExecutor(options.jobs) as pool:
        short = {tool: [pool.submit(train, tool, n, 0) for n in SHORT] for tool in TOOLS}
        seconds = {tool: [future.result().cpu_seconds for future in futures] for tool, futures in short.items()}
        epochs = {tool: epochs_within(options.cpu_seconds, seconds[tool]) for tool in TOOLS}
        print(f"CPU s of {SHORT} epochs: {seconds}; epochs in {options.cpu_seconds:g} s: {epochs}", file=sys.stderr, flush=True)
        plan = [(seed, tool) for seed in range(options.seeds) for tool in TOOLS]
        runs = list(pool.map(lambda planned: train(planned[1], epochs[planned[1]], planned[0]), plan))
    rows = []
    for (seed, tool), run in zip(plan, runs, strict=True):
        for name, maps in run.maps.items():
            about = {"tool": tool, "output": name, "seed": seed, "epochs": epochs[tool]}
            rows.append(about | {"cpu_seconds": run.cpu_seconds, "parameters": run.parameters} | run.facts | score(maps, data))
    (work / "results.json").write_text(json.dumps(rows, indent=1))
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Means and deviations over seeds of each tool and output, and the paired tests of ours against each of theirs."""
    kinds = list(dict.fromkeys((row["tool"], row["output"]) for row in rows))
    found = {kind: [row for row in rows if (row["tool"], row["output"]) == kind] for kind in kinds}
    ours = next(of_kind for (tool, _), of_kind in found.items() if tool == "ours")
    lines = [
        "| | parameters | epochs | CPU s | Abs Rel | RMSE, m | δ1 | Abs Rel of ours minus theirs, by seed | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (tool, output), of_kind in found.items():
        summary = {metric: summarize_seeds(np.array([row[metric] for row in of_kind])) for metric in METRICS}
        numbers = [f"{one.mean:.4f} ± {one.std:.4f}" for one in summary.values()]
        seconds = sorted(row["cpu_seconds"] for row in of_kind)
        cells = [f"{tool}, {output}", f"{of_kind[0]['parameters'] / 1e6:.2f} M", str(of_kind[0]["epochs"])]
        cells += [f"{seconds[0]:.0f} to {seconds[-1]:.0f}", *numbers]
        if tool == "ours":
            cells += ["", ""]
        else:
            pairs = zip(ours, of_kind, strict=True)
            differences = np.array([mine["abs_rel"] - other["abs_rel"] for mine, other in pairs])
            cells += [" ".join(f"{difference:+.4f}" for difference in differences), f"{sign_flip_p(differences):.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
