"""`tiekd dpm`: the target of L_DPM on a teacher's maps, as tables and as a figure."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reports.tables.dpm_target import percentiles, target_at, variants_of
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.config.specs import DPMS
from tiekd.distill.target_floor import floor_of, teacher_histogram


@pytest.fixture
def config(tiny, as_yaml, tmp_path):
    return as_yaml(tmp_path / "run.yaml", with_values(tiny, {"loss.name": "tie_kd"}))


def test_the_table_is_of_the_depths_of_the_maps_and_names_every_dpm(tiekd, config, tiny):
    outcome = tiekd("dpm", config, "--json")
    found, run = json.loads(outcome.out), build(with_values(tiny, {"loss.name": "tie_kd"}))
    assert (outcome.code, outcome.err, found["dpm"], found["files"]) == (0, "", "softmax_density", [])
    depths = [row["depth"] for row in found["target"]]
    assert depths == sorted(depths) == percentiles(teacher_histogram(run))
    assert [variant["dpm"] for variant in found["variants"]] == list(DPMS)  # the config's own is the first
    floors = {variant["dpm"]: variant["floor"] for variant in found["variants"]}
    assert floors["softmax_density"] == floor_of(run, teacher_histogram(run))._asdict()
    assert floors["two_hot"]["abs_rel"] < floors["softmax_density"]["abs_rel"]
    assert floors["two_hot"]["delta1"] > 0.9
    assert {variant["dpm"]: variant["settings"] for variant in found["variants"]} == {
        "softmax_density": "sigma 0.5 m, temperature 1",
        "density": "sigma 0.5 m",
        "integral": "sigma 0.5 m",
        "two_hot": "",
        "laplace": "sigma 0.5 m",
    }
    text = tiekd("dpm", config, "--set", "loss.dpm=integral").out.splitlines()
    assert text[0] == "synthetic-outdoor, teacher perfect; 16 uniform bins from 0.001 to 80 m"
    assert text[1].startswith("loss.dpm integral: the Gaussian integrated over each bin, normalized; sigma 0.5 m")
    assert len(text) == 3 + 1 + len(depths) + 1 + len(DPMS)


def test_a_row_is_what_its_distribution_is():
    document = {"data": {"dataset": "nyu"}, "teacher": {"name": "any", "maps": "any"}, "bins": {"n_bins": 100}}
    row = target_at(5.0, build(document | {"loss": {"name": "l_dpm", "dpm": "integral", "sigma": 0.5}}))
    assert (row.mean, row.std) == pytest.approx((5.0, math.hypot(0.5, 0.1 / math.sqrt(12))), abs=1e-3)
    assert row.entropy == pytest.approx(math.log2(0.5 / 0.1 * math.sqrt(2 * math.pi * math.e)), abs=0.01)  # of a Gaussian
    assert abs(row.n_bins - 2 * 2.576 * 0.5 / 0.1) <= 2
    row = target_at(5.0, build(document | {"loss": {"name": "l_dpm", "dpm": "two_hot"}}))
    assert (row.n_bins, row.bias) == (2, pytest.approx(0, abs=1e-9))


def test_the_other_dpms_leave_out_the_arithmetic_of_the_released_one():
    document = {"data": {"dataset": "nyu"}, "teacher": {"name": "any", "maps": "any"}, "loss": {"sigma": 0.3}}
    own, *others = variants_of(build(document | {"fidelity": "released"}))
    assert own.dpm_sigma == 0.5
    assert {other.dpm_sigma for other in others} == {0.3}
    assert "unmasked" in own.quirks & others[0].quirks


def test_the_figure_has_its_data(tiekd, config, tmp_path):
    outcome = tiekd("dpm", config, "--out", tmp_path / "out", "--json")
    files = json.loads(outcome.out)["files"]
    assert files == [str(tmp_path / "out" / f"dpm-target.{suffix}") for suffix in ("png", "svg", "pdf", "csv")]
    pixels = np.asarray(Image.open(files[0]).convert("L"))
    assert pixels.shape[1] > 1000
    assert (pixels < 128).mean() > 0.005
    panels = dict(iter(pd.read_csv(files[3]).groupby("panel")))
    assert panels["pixels"]["y"].sum() == pytest.approx(1)
    assert panels["target"].groupby("depth")["y"].sum().tolist() == pytest.approx([1, 1, 1])
    assert (panels["mean"]["low"] <= panels["mean"]["y"]).all()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"loss.name": "si"},
            "loss: this run has no L_DPM: expected one of l_dpm, tie_kd on the teacher's maps, with alpha above 0",
        ),
        ({"loss.alpha": 0.0}, "with alpha above 0, got loss.name 'tie_kd'"),
        ({"data.max_depth": 0.01}, "teacher perfect: no depth of its maps is within 0.001 to 0.01 m"),
        (
            {"teacher": {"name": "made", "run": {"student.name": "small"}}, "execution.store": "nowhere"},
            "teacher made: its maps are not in store nowhere; `tiekd run` or `tiekd ablate` makes them; or name the store",
        ),
        ({"loss.dpm": "gauss"}, "loss.dpm: unknown 'gauss'; valid: density, integral, laplace, softmax_density, two_hot"),
    ],
)
def test_what_has_no_target_is_refused(mistake, tiny, as_yaml, in_folder, changes, line):
    document = {name: section for name, section in tiny.items() if name not in changes}
    file = as_yaml(in_folder / "run.yaml", with_values(document, {"loss.name": "tie_kd"} | changes))
    message = mistake("dpm", file, "--out", "out")
    assert line in message
