"""A trained network's depth, written once as teacher maps."""

from pathlib import Path
from typing import Any

import torch

from tiekd.checkpoint import load_student
from tiekd.config import RunConfig
from tiekd.data import open_frames
from tiekd.data.transforms import normalise
from tiekd.errors import UserError
from tiekd.evaluate import predict_depth
from tiekd.run import run_id_of
from tiekd.runtime import choose_device
from tiekd.store import RunStore
from tiekd.teachers.maps import MapWriter, TeacherMaps


def trained_weights(config: RunConfig) -> Path:
    """The weights of the config's run in its store."""
    store = RunStore(config.execution.store)
    run_id = run_id_of(config)
    if not store.local:
        raise UserError(f"store {store.uri}: weights are read from a folder; give a copy of them with --weights")
    if store.run(run_id).status().state != "done":
        raise UserError(
            f"store {store.uri} has no finished run {run_id} of this config: train it with `tiekd run` and the same settings, "
            "or give --weights"
        )
    return Path(store.filesystem[1]) / "runs" / run_id / "student.safetensors"


def export_maps(config: RunConfig, weights: Path, out: Path, name: str) -> dict[str, Any]:
    """Depth of every train and test frame as 16-bit maps of the frame's view, with the config's flip TTA."""
    sources = [open_frames(config.data, split) for split in ("train", "test")]
    for source in sources:
        source.check()
    device = choose_device(config.execution.device)
    torch.set_num_threads(config.execution.cpus_per_worker)
    student, trained = load_student(weights)
    student.to(device).eval()
    made_by = {"teacher": name, "config": trained.document(), "flip_tta": config.evaluation.flip_tta}
    written: set[str] = set()
    with MapWriter(out, trained.data.max_depth, made_by) as writer:
        for source in sources:
            for index, key in enumerate(source.keys):
                if key in written:
                    continue
                image = normalise(source.load(index).image).unsqueeze(0).to(device)
                depth = predict_depth(student, image, trained.data, config.evaluation.flip_tta)
                writer.write(key, depth[0, 0].float().cpu().numpy())
                written.add(key)
    return {"maps": len(written), "out": str(out), "digest": TeacherMaps(out).digest()}
