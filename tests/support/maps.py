"""Teacher maps for tests: those of a perfect teacher, and a map that cannot be decoded."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from tiekd.config import build
from tiekd.data import open_frames
from tiekd.data.depth_range import N_MAPS
from tiekd.data.frame_source import evenly_spaced
from tiekd.data.teacher_maps import MapWriter


def write_perfect_maps(folder: Path, data: dict[str, Any]) -> None:
    """Write the exact depth of all frames of a rendered data set."""
    config = build({"data": data, "loss": {"name": "si", "target": "ground_truth"}})
    with MapWriter(folder, config.data.max_depth, {"teacher": "perfect"}) as writer:
        for split in ("train", "test"):
            source = open_frames(config.data, split)
            for index, key in enumerate(source.keys):
                depth = source.render(index).depth_exact
                writer.write(key, np.where(depth > 0, depth, config.data.max_depth).astype(np.float32))


def unsampled(n_frames: int) -> list[int]:
    """The frames whose maps are not read before a run, so that a damaged one fails the run."""
    return sorted(set(range(n_frames)) - set(evenly_spaced(n_frames, N_MAPS)))


def cut_map(folder: Path, key: str) -> None:
    """Cut off the end of a map, and record its new digest in the manifest, as if it had been exported so."""
    file, manifest = folder / f"{key}.png", folder / "manifest.json"
    file.write_bytes(file.read_bytes()[:-100])
    document = json.loads(manifest.read_text())
    document["frames"][key] = sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))
