"""The students' depth and distributions of the shown frames, predicted once."""

from collections.abc import Callable

import torch

from reports.viewer.choose import Method, Shown
from reports.viewer.frames import write_depth, write_dpm
from reports.viewer.pack import lattice
from reports.viewer.site import MAP, Site
from tiekd.data.transforms import normalize_image
from tiekd.inference.predict import predict
from tiekd.models.checkpoint import load_student
from tiekd.store.find_weights import fetch_weights
from tiekd.store.run_store import RunStore


def has_dpm(method: Method) -> bool:
    """Whether its distributions are over the fixed bins of its config; AdaBins' are over bins of each image."""
    return method.config.student.head == "dpm"


def write_student(
    site: Site, shown: Shown, method: Method, store: RunStore, device: torch.device, advance: Callable[[], None]
) -> None:
    """The predictions that are not there yet. A frame's depth map is written last: where it is, all is."""
    todo = site.missing(shown.id, method.run_id, shown.indices, MAP)
    for _ in range(len(shown.indices) - len(todo)):
        advance()
    if not todo:
        return
    network, config = load_student(fetch_weights(store, method.run_id))
    network.to(device).eval()
    for index in sorted(todo):
        frame = shown.source.load(index)
        found = predict(network, normalize_image(frame.image)[None].to(device), config)
        if has_dpm(method):
            rows, columns = (torch.from_numpy(places).to(device) for places in lattice(frame.size))
            depth = found.depth[:, :, rows][..., columns]
            write_dpm(site, shown, method.run_id, index, depth, found.dpm_at(rows, columns))
        write_depth(site, shown, method.run_id, index, found.depth[0, 0].cpu().numpy(), frame)
        advance()
