"""Measure the viewer with 700 frames and 10 results: size on disk, and milliseconds per key in Chromium.

    python benchmarks/viewer.py STORE [--frames 700] [--distinct 2]

STORE is the store of `make demo`: ten cells. Their students are widened to the 257 bins of KITTI by interpolating between
their bins. The viewer predicts and encodes a few distinct frames of KITTI's size (352 x 1216); the files are then copied to
the names of the other frames, with random metrics. The files are in the page cache. Needs playwright and Chromium.

    first    from opening the file until all pictures are drawn
    step     an arrow key until all pictures are drawn, 0.3 s between keys, as a person uses it; neighbors are prefetched
    held     the same, pressing the next key as soon as the pictures are drawn
    jump     a click on a distant image in the list; nothing is prefetched
"""

import argparse
import json
import re
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import Page, sync_playwright
from torch import nn
from torch.nn import functional as F

from reports.viewer.build import build_site
from reports.viewer.choose import ShownDataset, ShownRun, choose_datasets
from reports.viewer.site import Site
from tiekd.config import RunConfig, override
from tiekd.config.labels import METRICS
from tiekd.data import open_frames
from tiekd.data.teacher_maps import MapWriter
from tiekd.models.checkpoint import load_network, pack_network
from tiekd.models.registry import build_network
from tiekd.store.find_weights import fetch_weights
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

LARGE = {
    "data.frame_size": [352, 1216],
    "data.train_crop": [352, 704],
    "data.train_frames": 1,
    "bins.n_bins": 257,
    "student.pretrained": False,
}


def enlarge(runs: list[ShownRun], small: RunStore, large: RunStore, folder: Path, n_frames: int, distinct: int) -> None:
    """Store the same students as runs on frames of KITTI's size, and write teacher maps of the predicted frames to `folder`."""
    source = open_frames(override(runs[0].config, LARGE | {"data.test_frames": n_frames}).data, "test")
    with MapWriter(folder, 80.0, {"teacher": "exact"}) as writer:
        for index in evenly_spaced(n_frames, distinct):
            depth = source.render(index).depth_exact
            writer.write(source.keys[index], np.where(depth > 0, depth, 80.0).astype(np.float32))
    rng = np.random.default_rng(0)
    for run in runs:
        maps = {"teacher.maps": str(folder)} if run.config.teacher else {}
        config = override(run.config, LARGE | maps | {"data.test_frames": n_frames})
        record = large.run(config.fingerprint())
        rows = pd.DataFrame({"image": source.keys, "group": "scene", "n_valid": 20_000})
        record.write_table("images.parquet", rows.assign(**{metric: rng.random(n_frames) for metric in METRICS}))
        record.write_config(config)
        record.write_file("student.safetensors", pack_network(widen(run, config, small), config))
        record.write_json("summary.json", {"protocol": "none", "n_images": n_frames, "metrics": dict.fromkeys(METRICS, 0.5)})
        record.write_status(Status("done"))


def widen(run: ShownRun, config: RunConfig, store: RunStore) -> nn.Module:
    """Load a run's student and interpolate its head to the bins of `config`."""
    trained, _ = load_network(fetch_weights(store, run.run_id))
    network, weights = build_network(config), trained.state_dict()
    for name in [name for name in weights if name.startswith("head.logits")]:
        rows = weights[name].reshape(len(weights[name]), -1).T[None]  # [1, channels, bins]
        wide = F.interpolate(rows, config.bins.n_bins, mode="linear", align_corners=True)[0].T
        weights[name] = wide.reshape(config.bins.n_bins, *weights[name].shape[1:])
    network.load_state_dict(weights)
    return network


def evenly_spaced(n_frames: int, distinct: int) -> list[int]:
    return [round(i * (n_frames - 1) / (distinct - 1)) for i in range(distinct)]


def copy_frames(site: Site, dataset: ShownDataset, n_frames: int, store: RunStore) -> None:
    """Copy the files of the predicted frames to all other frames."""
    folder = site.folder / "data/v1" / dataset.id
    originals = list(dataset.indices)
    for result in filter(Path.is_dir, folder.iterdir()):
        for index in set(range(n_frames)) - set(originals):
            original = originals[index % len(originals)]
            for path in result.glob(f"{original:05d}.*"):
                name = path.name.replace(f"{original:05d}", f"{index:05d}")
                content = path.read_bytes().replace(f"/{original:05d}".encode(), f"/{index:05d}".encode(), 1)
                (result / name).write_bytes(content)
    dataset.indices[:] = range(n_frames)
    for path in folder.glob("teacher-*/none.json"):
        known = list(json.loads(path.read_text()).values())
        path.write_text(json.dumps({str(i): known[i % len(known)] for i in range(n_frames)}))
    build_site(site, [dataset], store)


def sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the number of files and bytes of each kind."""
    totals: dict[str, tuple[int, int]] = {}
    for path in filter(Path.is_file, folder.rglob("*")):
        result = path.parent.name
        kind = "indices" if path.name == "index.js" else "page" if path.parent == folder else "other"
        if re.fullmatch(r"\d+(\.dpm)?\.\w+", path.name):
            kind = re.sub(r"-.*", "", result) if re.match(r"image|truth|teacher|target", result) else "student"
            kind += " distributions" if ".dpm." in path.name and kind == "student" else ""
        n, size = totals.get(kind, (0, 0))
        totals[kind] = n + 1, size + path.stat().st_size
    return dict(sorted(totals.items()))


def print_sizes(folder: Path) -> None:
    totals = sizes(folder)
    print("| what | files | each, kB | all, MB |\n|---|---|---|---|")
    for kind, (n, size) in totals.items():
        print(f"| {kind} | {n} | {size / n / 1e3:.1f} | {size / 1e6:.1f} |")
    n, size = map(sum, zip(*totals.values(), strict=True))
    print(f"| all | {n} | | {size / 1e6:.1f} |", flush=True)


TIMED = """
action => new Promise(resolve => {
  const start = performance.now();
  const watch = new MutationObserver(() => {
    if (document.body.dataset.ready !== "true") return;
    watch.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => resolve(performance.now() - start)));
  });
  watch.observe(document.body, {attributes: true, attributeFilter: ["data-ready"]});
  action.key ? document.body.dispatchEvent(new KeyboardEvent("keydown", {key: action.key, bubbles: true}))
          : document.querySelector(`#frames li:nth-child(${action.place})`).click();
})
"""


def times(page: Page, actions: list[dict], pause: float) -> list[float]:
    """Return the milliseconds from each action until its pictures are on the screen."""
    milliseconds = []
    for action in actions:
        milliseconds.append(page.evaluate(TIMED, action))
        page.wait_for_timeout(pause)
    return milliseconds


def print_row(name: str, milliseconds: list[float]) -> None:
    ordered = sorted(milliseconds)
    median, high = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
    print(f"| {name} | {median:.0f} | {high:.0f} | {len(ordered)} |", flush=True)


def measure(folder: Path, n_frames: int) -> None:
    rng = np.random.default_rng(1)
    right = [{"key": "ArrowRight"}]
    jumps = [{"place": int(place) + 1} for place in rng.permutation(n_frames)[:40]]
    cases: dict[str, Callable[[Page], list[float]]] = {
        "step": lambda page: times(page, right * 60, 300),
        "held": lambda page: times(page, right * 100, 0),
        "jump": lambda page: times(page, jumps, 300),
    }
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        print(f"\nChromium {browser.version}, 1366 x 768\n\n| what | median, ms | 95 %, ms | n |\n|---|---|---|---|")
        first = []
        for _ in range(5):
            page = browser.new_page(viewport={"width": 1366, "height": 768})
            page.goto((folder / "index.html").as_uri())
            page.wait_for_selector("body[data-ready=true]")
            first.append(page.evaluate("performance.now()"))
            page.close()
        print_row("first", first)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.goto((folder / "index.html").as_uri())
        page.wait_for_selector("body[data-ready=true]")
        for name, case in cases.items():
            print_row(name, case(page))
        print(f"\nJavaScript heap: {page.evaluate('performance.memory.usedJSHeapSize') / 1e6:.0f} MB")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="store of `make demo`")
    parser.add_argument("--frames", type=int, default=700)
    parser.add_argument("--distinct", type=int, default=2, help="number of frames to predict")
    parser.add_argument("--out", type=Path, help="folder to keep the viewer in [default: temporary]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = options.out or work / "viewer"
        small, large = RunStore(options.store), RunStore(work / "large")
        runs = choose_datasets(small, None, (), 1)[0][0].runs[:10]
        enlarge(runs, small, large, work / "maps", options.frames, options.distinct)
        (dataset,), left_out = choose_datasets(large, None, (), options.distinct)
        assert not left_out, left_out
        assert len(dataset.runs) == len(runs)
        build_site(Site(folder), [dataset], large)
        copy_frames(Site(folder), dataset, options.frames, large)
        print_sizes(folder)
        measure(folder, options.frames)


if __name__ == "__main__":
    main()
