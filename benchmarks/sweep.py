"""Measure the overhead of a sweep beyond the trials' own work: three arrangements on Ray with two slots, and one without Ray.

    python benchmarks/sweep.py [--only guide ours] [--rounds 2] [--trials 40] [--epochs 6]

    plain    two processes that run one trial after another, without Ray
    ours     `tiekd ablate`: the loop runs in the Tune function, and processes are reused
    fresh    the loop runs in the Tune function, with a new process for each trial
    guide    a TorchTrainer inside a Tune function, as in Ray's guide "Hyperparameter Tuning with Ray Tune"

A trial is a run of the embedded data on one thread. Its own work is the time inside `tiekd.distill.distill` (data, training,
validation, checkpoints) without the time that it waits for its reports. Everything else is overhead. Needs Linux's /proc.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SLOTS = 2
ARRANGEMENTS = ("plain", "guide", "fresh", "ours")
# Fewer trials for the other arrangements: guide is slow, and the trials of plain and fresh all cost the same.
FEWER_TRIALS = {"plain": 8, "guide": 4, "fresh": 6}
MEMORY_EVERY_S = 4.0


# -- in the process of a trial ---------------------------------------------------------------------------------------------


def clocked_run(document: dict[str, Any], report: Callable[[dict], None], log: str) -> dict[str, Any]:
    """Run `execute_run`; append its times (s since 1970) and the bytes it read to `log`."""
    record = {"pid": os.getpid(), "entered": time.time(), "waited": 0.0}
    import tiekd.distill.run
    from ablations.execution.trial import execute_run

    read, distill = bytes_read(), tiekd.distill.run.distill

    def clocked_report(metrics: dict[str, Any]) -> None:
        started = time.time()
        report(metrics)
        record["waited"] += time.time() - started

    def clocked_distill(config: Any, runtime: Any) -> Any:
        record["begun"] = time.time()
        result = distill(config, runtime)
        record["ended"] = time.time()
        return result

    tiekd.distill.run.distill = clocked_distill
    try:
        outcome = execute_run(document, clocked_report)
    finally:
        tiekd.distill.run.distill = distill
    with open(log, "a") as stream:
        stream.write(json.dumps(record | {"read": bytes_read() - read, "state": outcome["state"]}) + "\n")
    return outcome


def bytes_read() -> int:
    """Return the bytes this process has read from files so far, from disk or page cache."""
    return int(Path("/proc/self/io").read_text().split()[1])


# -- the arrangements, each in its own process -----------------------------------------------------------------------------


def run_plain(folder: Path, documents: list[dict]) -> None:
    from multiprocessing import get_context

    log = str(folder / "trials.jsonl")
    parts = [documents[slot::SLOTS] for slot in range(SLOTS)]
    slots = [get_context("spawn").Process(target=run_each, args=(part, log)) for part in parts]
    for slot in slots:
        slot.start()
    for slot in slots:
        slot.join()


def run_each(documents: list[dict], log: str) -> None:
    for document in documents:
        clocked_run(document, lambda metrics: None, log)


def run_ours(folder: Path, documents: list[dict]) -> None:
    """Run the command itself, with timed trials."""
    import ablations.execution.trial
    from tiekd.__main__ import main

    log = str(folder / "trials.jsonl")

    def compute_cell(params: dict[str, Any], configs: dict[str, dict]) -> None:
        from ray import tune

        tune.report(clocked_run(configs[params["run_id"]], tune.report, log))

    ablations.execution.trial.compute_cell = compute_cell
    sys.argv = ["tiekd", "ablate", str(folder / "study.json")]
    main()


def run_fresh(folder: Path, documents: list[dict]) -> None:
    import ray
    from ray import tune

    log = str(folder / "trials.jsonl")

    def trial(config: dict[str, Any]) -> None:
        tune.report(clocked_run(config["document"], tune.report, log))

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 1}),
        param_space={"document": tune.grid_search(documents)},
        run_config=tune.RunConfig(name="ray", storage_path=str(folder), verbose=0),
    )
    tuner.fit()
    ray.shutdown()


def run_guide(folder: Path, documents: list[dict]) -> None:
    import ray
    import ray.train
    from ray import tune
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    log = str(folder / "trials.jsonl")

    def train_loop(config: dict[str, Any]) -> None:
        ray.train.report(clocked_run(config["document"], ray.train.report, log))

    def driver(config: dict[str, Any]) -> None:
        name = f"train-{tune.get_context().get_trial_id()}"
        TorchTrainer(
            train_loop,
            train_loop_config=config,
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(name=name, storage_path=str(folder), callbacks=[TuneReportCallback()]),
        ).fit()

    # One CPU for each trial's driver and one for its worker; Ray's count may exceed the machine's.
    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2 * SLOTS)
    tuner = tune.Tuner(
        driver,
        param_space={"document": tune.grid_search(documents)},
        tune_config=tune.TuneConfig(max_concurrent_trials=SLOTS),
        run_config=tune.RunConfig(name="ray", storage_path=str(folder), verbose=0),
    )
    tuner.fit()
    ray.shutdown()


def arrange(name: str, folder: Path) -> None:
    """Run one arrangement; write the CPU time and memory of its processes to folder/processes.json."""
    import ablations  # noqa: F401 - sets Ray's environment before Ray is imported

    documents = json.loads((folder / "documents.json").read_text())
    if name == "plain":
        return run_plain(folder, documents)
    import ray

    shutdown, init, peak = ray.shutdown, ray.init, [0]

    def measured_shutdown() -> None:
        if ray.is_initialized():
            (folder / "processes.json").write_text(json.dumps({"cpu": cpu_seconds(), "trials_bytes": peak[0]}))
        shutdown()

    def watch() -> None:
        while True:
            time.sleep(MEMORY_EVERY_S)
            peak[0] = max(peak[0], trials_bytes())

    ray.shutdown = measured_shutdown
    ray.init = lambda **options: init(**{"num_cpus": SLOTS} | options)
    threading.Thread(target=watch, daemon=True).start()
    {"ours": run_ours, "fresh": run_fresh, "guide": run_guide}[name](folder, documents)


def session() -> dict[int, tuple[str, list[str]]]:
    """Return the processes of this session: pid -> command line, fields of /proc/<pid>/stat after the name."""
    processes = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == os.getsid(0):
                processes[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "), fields
        except OSError:  # the process has ended
            continue
    return processes


def cpu_seconds() -> dict[str, float]:
    """Return the CPU seconds of the driver, of Ray's processes and of the running trial processes ("ray::")."""
    spent = {"driver": 0.0, "ray": 0.0, "trials": 0.0}
    for pid, (command, fields) in session().items():
        part = "driver" if pid == os.getpid() else "trials" if command.startswith("ray::") else "ray"
        spent[part] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def trials_bytes() -> int:
    """Return the memory of the trial processes in bytes; shared pages are divided among their processes."""
    total = 0
    for pid, (command, _) in session().items():
        if command.startswith("ray::") and not command.startswith("ray::IDLE"):
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


# -- the comparison --------------------------------------------------------------------------------------------------------


def prepare(folder: Path, n_trials: int, epochs: int) -> None:
    """Write the trials, which differ in their seed, as a study and as run documents, and the maps of a perfect teacher."""
    import numpy as np

    from tiekd.config import build
    from tiekd.data import open_frames
    from tiekd.data.teacher_maps import MapWriter

    base = {
        "data": {"dataset": "synthetic-outdoor"},
        "teacher": {"name": "perfect", "maps": str(folder / "maps")},
        "student": {"name": "tiny"},
        "optim": {"epochs": epochs, "batch_size": 4},
        "execution": {"store": str(folder / "store"), "cpus_per_worker": 1},
    }
    config = build(base)
    with MapWriter(folder / "maps", config.data.max_depth, {"teacher": "perfect"}) as writer:
        frames = open_frames(config.data, "train")
        for index, key in enumerate(frames.keys):
            depth = frames.render(index).depth_exact
            writer.write(key, np.where(depth > 0, depth, config.data.max_depth).astype(np.float32))
    (folder / "store" / "studies").mkdir(parents=True)  # trials do not create a store
    documents = [build(base | {"seed": seed}).document() for seed in range(n_trials)]
    (folder / "documents.json").write_text(json.dumps(documents))
    (folder / "study.json").write_text(json.dumps({"name": "sweep", "base": base, "seeds": list(range(n_trials))}))


def measure(name: str, n_trials: int, epochs: int) -> dict[str, Any]:
    """Run one arrangement; return its numbers, times in s."""
    with tempfile.TemporaryDirectory(prefix="tks", dir="/tmp") as place:
        folder = Path(place)
        prepare(folder, n_trials, epochs)
        environment = os.environ | {"RAY_TMPDIR": place, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--arrangement", name, "--folder", place]
        started = time.time()
        done = subprocess.run(command, env=environment, start_new_session=True, capture_output=True, text=True)
        wall = time.time() - started
        log = folder / "trials.jsonl"
        trials = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        if len(trials) != n_trials or {trial["state"] for trial in trials} != {"done"}:
            raise SystemExit(f"{name}: {len(trials)} of {n_trials} trials\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}")
        processes = folder / "processes.json"
        return summary(name, trials, started, wall) | (json.loads(processes.read_text()) if processes.exists() else {})


def summary(name: str, trials: list[dict], started: float, wall: float) -> dict[str, Any]:
    begun, ended = sorted(t["begun"] for t in trials), sorted(t["ended"] for t in trials)
    work = [t["ended"] - t["begun"] - t["waited"] for t in trials]
    # A slot is free from the end of a trial's work until the start of the next one's.
    between = [b - e for b, e in zip(begun[SLOTS:], ended, strict=False)]
    fixed = sum(between) / len(between) + sum(t["waited"] for t in trials) / len(trials)
    seen: set[int] = set()
    reads = {"first": [], "later": []}
    for t in sorted(trials, key=lambda t: t["begun"]):
        reads["later" if t["pid"] in seen else "first"].append(t["read"])
        seen.add(t["pid"])
    return {
        "arrangement": name,
        "trials": len(trials),
        "first": begun[0] - started,
        "fixed": fixed,
        "work": sum(work) / len(work),
        "wall": wall,
        "efficiency": sum(work) / SLOTS / wall,
        "efficiency_under_way": sum(work) / SLOTS / (ended[-1] - begun[0]),
        **{f"read_{which}": sum(values) / len(values) if values else None for which, values in reads.items()},
    }


COLUMNS = {
    "arrangement": lambda r: r["arrangement"],
    "trials": lambda r: str(r["trials"]),
    "until the first works, s": lambda r: f"{r['first']:.1f}",
    "fixed cost of a later trial, s": lambda r: f"{r['fixed']:.2f}",
    "own work of a trial, s": lambda r: f"{r['work']:.2f}",
    "whole command, s": lambda r: f"{r['wall']:.1f}",
    "ideal / whole command": lambda r: f"{r['efficiency']:.1%}",
    "ideal / first to last": lambda r: f"{r['efficiency_under_way']:.1%}",
    "MB read, first in a process": lambda r: f"{r['read_first'] / 1e6:.1f}",
    "MB read, later": lambda r: f"{r['read_later'] / 1e6:.1f}" if r["read_later"] is not None else "-",
    "MB of memory per slot": lambda r: f"{r['trials_bytes'] / SLOTS / 1e6:.0f}" if "trials_bytes" in r else "-",
    "CPU s of driver, Ray": lambda r: f"{r['cpu']['driver']:.0f}, {r['cpu']['ray']:.0f}" if "cpu" in r else "-",
}


def table(results: list[dict[str, Any]]) -> str:
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *([cell(r) for cell in COLUMNS.values()] for r in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ARRANGEMENTS, nargs="+", default=ARRANGEMENTS, help="arrangements to measure [all]")
    parser.add_argument("--rounds", type=int, default=2, help="number of rounds, in which the arrangements take turns [2]")
    parser.add_argument("--trials", type=int, default=40, help="trials of `ours` [40]")
    parser.add_argument("--epochs", type=int, default=6, help="epochs per trial [6]")
    parser.add_argument("--arrangement", choices=ARRANGEMENTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trials <= SLOTS:
        parser.error(f"--trials: must exceed the number of slots, {SLOTS}; got {options.trials}")
    if options.folder:
        return arrange(options.arrangement, options.folder)
    results = []
    for _ in range(options.rounds):
        for name in options.only:
            results.append(measure(name, FEWER_TRIALS.get(name, options.trials), options.epochs))
            print(f"{name}: done, {results[-1]['wall']:.0f} s", file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    main()
