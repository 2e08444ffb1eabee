import subprocess
import sys

import numpy as np
import pytest
import torch

from tiekd.bins import DepthBins, expected_depth
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.config.specs import DPMS
from tiekd.data.teacher_maps import MapWriter
from tiekd.distill.target_floor import floor_line, floor_of, has_target, mean_of_target, target_of, teacher_histogram
from tiekd.losses import dpm_target

NYU = {"data": {"dataset": "nyu"}, "teacher": {"name": "bts", "maps": "maps"}, "loss": {"name": "l_dpm"}}
WIDE, NARROW, COLD = {"loss.sigma": 0.5}, {}, {"loss.sigma": 0.5, "loss.temperature": 0.1}


def config_of(changes):
    return build(with_values(NYU, changes))


@pytest.mark.parametrize(
    ("changes", "means"),
    [
        (WIDE, [1.92, 2.33, 2.96, 5.00, 8.00]),
        (NARROW, [0.47, 1.05, 1.97, 5.00, 9.35]),
        (COLD, [0.33, 1.01, 2.00, 5.00, 9.49]),
        (NARROW | {"loss.name": "tie_kd", "fidelity": "released"}, [1.92, 2.33, 2.96, 5.00, 8.00]),
    ],
    ids=["sigma 0.5", "sigma 0.15", "temperature 0.1", "released"],
)
def test_a_wide_target_is_far_from_the_teacher(changes, means):
    assert mean_of_target(np.array([0.3, 1.0, 2.0, 5.0, 9.5]), config_of(changes)) == pytest.approx(means, abs=0.006)


@pytest.mark.parametrize(("changes", "floor"), [(WIDE, 0.2025), (NARROW, 0.0063), (COLD, 0.0011)], ids=["0.5", "0.15", "cold"])
def test_the_floor_of_depths_that_are_equally_frequent(changes, floor):
    depth = np.linspace(0.9, 9, 4001)
    assert floor_of(config_of(changes), (depth, np.ones_like(depth))).abs_rel == pytest.approx(floor, abs=1e-4)


@pytest.mark.parametrize("spacing", ["uniform", "log", "inverse"])
@pytest.mark.parametrize("fidelity", ["corrected", "released", ["uniform_outside"]])
@pytest.mark.parametrize("sigma", [0.01, 0.15, 2.0])
def test_the_mean_is_that_of_the_reference_target(spacing, fidelity, sigma):
    changes = {"bins.spacing": spacing, "fidelity": fidelity, "loss.sigma": sigma, "loss.temperature": 0.7}
    config, depth = config_of(changes), np.linspace(0.05, 10, 333)
    target = dpm_target(config)(torch.from_numpy(depth).view(1, 1, 1, -1))
    bins = DepthBins(config.bins.n_bins, *config.data.depth_range, spacing)
    reference = expected_depth(target, bins).flatten().numpy()
    assert mean_of_target(depth, config) == pytest.approx(reference, abs=2e-4)


@pytest.mark.parametrize("dpm", DPMS)
@pytest.mark.parametrize("spacing", ["uniform", "log", "inverse"])
@pytest.mark.parametrize("sigma", [0.05, 0.15, 100.0])
def test_the_target_is_the_reference_target_of_every_dpm(dpm, spacing, sigma):
    config = config_of({"bins.spacing": spacing, "loss.dpm": dpm, "loss.sigma": sigma})
    depth = np.array([0.0, *np.linspace(0.05, 10, 100), 12.0])
    reference = dpm_target(config)(torch.from_numpy(depth).view(1, 1, 1, -1))[0, :, 0].T.numpy()
    # The reference has bins of float32. Between two of 1 m, their rounding counts most where the density is narrow.
    assert target_of(depth, config) == pytest.approx(reference, abs=2e-4)


@pytest.mark.parametrize(
    ("dpm", "settings"),
    [("integral", "loss.dpm integral, loss.sigma 0.8 m, 8 bins"), ("two_hot", "loss.dpm two_hot, 8 bins")],
)
def test_the_line_names_what_the_target_reads(tiny, dpm, settings):
    line = floor_line([tiny({"loss.dpm": dpm, "loss.sigma": 0.8, "bins.n_bins": 8, "bins.spacing": "log"})])
    assert f"({settings}); see docs/fidelity.md" in line


def test_the_line_tells_the_highest_floor_of_a_launch(tiny, teacher):
    runs = {"l_dpm": {"loss.name": "l_dpm"}, "wide": {"loss.name": "tie_kd", "loss.sigma": 0.8, "bins.n_bins": 64}}
    configs = [tiny(changes) for changes in (*runs.values(), {"loss.name": "si"}, {"loss.name": "tie_kd", "loss.alpha": 0.0})]
    floors = [floor_of(config, teacher_histogram(config)).abs_rel for config in configs[:2]]
    assert floors[0] < 0.02 < floors[1]
    line = floor_line(configs)
    assert f"in 1 of 2 runs, highest: abs_rel {floors[1]:.3f} at best" in line
    assert "(loss.sigma 0.8 m, loss.temperature 1, 64 bins); see docs/fidelity.md" in line
    assert "runs" not in floor_line(configs[1:2])
    assert floor_line([configs[0], *configs[2:]]) == ""


def test_a_part_on_the_teacher_has_a_target():
    mix = {"si": {"target": "ground_truth"}, "tie_kd": {"weight": 0.1}}
    has = [({"loss.parts": mix}, True), ({"loss.parts": mix | {"tie_kd": {"weight": 0}}}, False), ({"loss.name": "si"}, False)]
    assert [has_target(config_of(changes)) for changes, _ in has] == [found for _, found in has]
    assert not has_target(config_of({"loss.parts": mix, "loss.alpha": 0.0}))


def test_a_teacher_outside_the_depth_range_has_no_floor(tiny, tmp_path, teacher):
    config = tiny({"loss.name": "l_dpm", "teacher.maps": str(tmp_path / "maps")})
    with MapWriter(config.teacher.maps, 10.0, {}) as writer:
        for scene in range(2):
            for frame in range(4):
                writer.write(f"train/scene_{scene:03d}/{frame:04d}", np.zeros((64, 96)))
    assert teacher_histogram(config) is None
    assert floor_line([config]) == ""


def test_the_floor_is_computed_without_pytorch():
    code = "import sys, tiekd.distill.target_floor; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
