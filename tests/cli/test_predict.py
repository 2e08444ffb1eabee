"""The commands that use a trained network elsewhere: on own images, as a model folder with its card."""

import csv
import json
import re
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

from tiekd.config import RunConfig, build, override
from tiekd.data import open_frames
from tiekd.data.image_io import read_rgb, read_uint16, rgb_size
from tiekd.deploy import quantize
from tiekd.deploy.hub import DepthModel
from tiekd.deploy.onnx import Difference
from tiekd.models.checkpoint import load_network, pack_network
from tiekd.store.run_store import RunStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiekd, tiny, as_yaml) -> SimpleNamespace:
    """Two seeds of a student with distributions, and a run that is of no cell of theirs."""
    folder = tmp_path_factory.mktemp("ran")
    run = as_yaml(folder / "run.yaml", tiny | {"loss": {"name": "tie_kd"}})
    ids = []
    for change in ("seed=0", "seed=1", "loss.sigma=0.8"):
        outcome = tiekd("run", run, "--set", change, "--store", folder / "store", "--json")
        assert outcome.code == 0, outcome.err
        ids.append(json.loads(outcome.out)["run_id"])
    return SimpleNamespace(store=folder / "store", ids=ids, folder=folder / "store/runs" / ids[0])


@pytest.fixture(scope="module")
def config(ran) -> RunConfig:
    return RunStore(ran.store).run(ran.ids[0]).config()


@pytest.fixture
def photo(in_folder, config) -> Path:
    """A test frame of the run's data set, twice as large, as people have it."""
    path = in_folder / "street.png"
    frame = Image.fromarray(open_frames(config.data, "test").load(0).image)
    frame.resize((frame.width * 2, frame.height * 2)).save(path)
    return path


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# -- predict ------------------------------------------------------------------------------------------------------------------


def test_an_image_gets_depth_colours_and_entropy_at_its_size(tiekd, ran, photo, in_folder):
    outcome = tiekd("predict", ran.folder, photo, "--out", "out", "--json")
    assert outcome.code == 0, outcome.err
    assert files_in(in_folder / "out") == [
        "predictions.json",
        "street_colour.png",
        "street_depth.png",
        "street_entropy.png",
    ]
    found = json.loads(outcome.out)
    assert json.loads((in_folder / "out/predictions.json").read_text()) == found
    (row,) = found["images"]
    image = read_rgb(photo)
    depth = read_uint16(in_folder / "out/street_depth.png", "depth") / found["depth_scale"]
    assert depth.shape == image.shape[:2] == tuple(row["size"])
    assert row["seen_as"] == [64, 96]
    student = DepthModel.load(ran.folder / "student.safetensors")
    np.testing.assert_allclose(depth, student.predict(image).depth, atol=0.5 / 256 + 1e-6)
    for name in ("colour", "entropy"):
        assert rgb_size(in_folder / f"out/street_{name}.png") == image.shape[:2]


@pytest.mark.parametrize("named", ["folder", "file", "id"])
def test_weights_are_named_by_folder_file_or_run_id(tiekd, ran, photo, in_folder, named):
    words = {"folder": [ran.folder], "file": [ran.folder / "student.safetensors"], "id": [ran.ids[0][:8], "--store", ran.store]}
    outcome = tiekd("predict", *words[named], photo, "--out", "out")
    assert outcome.code == 0, outcome.err
    assert outcome.out == "1 image in out; depth PNG: value / 256 = m\n"


def test_distributions_and_points_come_on_request(tiekd, ran, photo, in_folder):
    words = ["--ply", "--focal", "100", "--pixel", "3,5", "--pixel", "100,70", "--range", "1,80", "--legend"]
    outcome = tiekd("predict", ran.folder, photo, "--out", "out", *words)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith("street at 3,5: ")
    with (in_folder / "out/street_pixel_3_5.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert sum(row["probability"] for row in rows) == pytest.approx(1, abs=1e-5)
    expected = sum(row["probability"] * row["center_m"] for row in rows)
    assert f"expected depth {expected:.3f} m" in lines[0]
    depth = read_uint16(in_folder / "out/street_depth.png", "depth") / 256
    assert depth[5, 3] == pytest.approx(expected, abs=0.003)
    assert b"element vertex 24576\n" in (in_folder / "out/street.ply").read_bytes()
    assert rgb_size(in_folder / "out/street_colour.png") > (128, 192)  # the legend stands at the right


def test_what_cannot_be_read_is_told_and_the_others_are_made(tiekd, ran, photo, in_folder):
    (in_folder / "text.png").write_text("no image")
    outcome = tiekd("predict", ran.folder, "text.png", photo, "--out", "out")
    assert outcome.code == 1
    assert outcome.err == "tiekd: image text.png: not an image file of a supported format\n"
    assert outcome.out == "1 image in out, 1 skipped; depth PNG: value / 256 = m\n"
    (line,) = json.loads((in_folder / "out/predictions.json").read_text())["failed"]
    assert outcome.err == f"tiekd: {line}\n"


def test_depth_beyond_a_png_is_clipped_and_told(tiekd, ran, photo, in_folder):
    network, config = load_network(ran.folder / "student.safetensors")
    beyond = override(config, {"data.dataset": "nyu", "data.frame_size": None, "data.min_depth": 70})
    (in_folder / "w.safetensors").write_bytes(pack_network(network, beyond))
    outcome = tiekd("predict", "w.safetensors", photo, "--out", "out")
    assert outcome.code == 0, outcome.err
    assert outcome.err == "tiekd: 24576 pixels exceed the range of a 16-bit PNG at 1000 per metre and were clipped\n"
    assert (read_uint16(in_folder / "out/street_depth.png", "depth") == 65535).all()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["none.png"], "none.png: no such file or folder"),
        (["street.png", "--every", "2"], "--every 2: is only used with videos"),
        (["street.png", "--set", "data.max_depth=10"], "data.max_depth: predict only reads evaluation.flip_tta, "),
        (["street.png", "--set", "bins={n_bins: 8}"], "bins.n_bins: predict only reads evaluation.flip_tta, "),
        (["street.png", "--ply"], "--ply: needs the camera: --focal F or --focal FX,FY,CX,CY in px"),
        (["street.png", "--focal", "100"], "--focal 100: is only used with --ply"),
        (["street.png", "--ply", "--focal", "1,2"], "--focal: expected F or FX,FY,CX,CY in px, got '1,2'"),
        (["street.png", "--ply", "--focal", "-5"], "--focal: expected a focal length above 0 px, got '-5'"),
        (["street.png", "--range", "5,2"], "--range: expected 0 < LOW < HIGH in metres, got '5,2'"),
        (["street.png", "--pixel", "1.5,2"], "--pixel: expected whole numbers X,Y, got '1.5,2'"),
        (["street.png", "--pixel", "a"], "--pixel: expected X,Y: column and row from the top left, from 0, got 'a'"),
        (["street.png", "street.png"], "2 images would be written as 'street': street.png, street.png; give them in"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(mistake, ran, photo, words, complaint):
    assert mistake("predict", ran.folder, *words, "--out", "out").startswith(f"tiekd: {complaint}")


def test_distributions_of_a_network_without_are_refused(mistake, ran, photo, tmp_path_factory, config):
    student = DepthModel(build(config.document() | {"loss": {"name": "si"}, "student": {"name": "tiny"}}).document())
    folder = tmp_path_factory.mktemp("regression")
    student.save_pretrained(folder)
    line = mistake("predict", folder, photo, "--pixel", "1,1", "--out", "out")
    assert line.endswith("comes from student.head dpm; this network has regression")


# -- a model folder -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(ran, tiekd, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "model"
    outcome = tiekd("export", ran.folder, "--format", "hub", "--out", folder)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"{folder}: model.safetensors, config.json, README.md; not pushed\n"
    return folder


def test_a_model_folder_gives_the_same_depth(model, ran):
    assert files_in(model) == ["README.md", "config.json", "model.safetensors"]
    loaded, original = DepthModel.from_pretrained(model), DepthModel.load(ran.folder / "student.safetensors")
    assert not loaded.training
    image = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image).depth, original(image).depth, rtol=0, atol=0)
        torch.testing.assert_close(loaded(image).dpm_logits, original(image).dpm_logits, rtol=0, atol=0)


def test_it_is_saved_as_it_was_loaded(model, tmp_path):
    DepthModel.from_pretrained(str(model)).save_pretrained(tmp_path / "again")
    for name in ("config.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes()
    again, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "again", model))
    assert again.keys() == before.keys()
    assert all(torch.equal(again[name], before[name]) for name in before)


def test_it_tells_nothing_of_the_machine(model, ran, tiny):
    for name in files_in(model):
        content = (model / name).read_bytes()
        assert str(ran.store).encode() not in content
        assert tiny["teacher"]["maps"].encode() not in content


def test_other_commands_take_it_for_weights(model, tiekd, photo, in_folder):
    outcome = tiekd("predict", model, photo, "--out", "out")
    assert outcome.code == 0, outcome.err


def test_a_pickle_is_never_loaded(model, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(model, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file"):
        DepthModel.from_pretrained(folder)


def test_the_card_tells_the_runs_own_numbers_and_its_seeds(model, ran):
    card = ModelCard.load(model / "README.md")
    card.data.to_yaml()
    summaries = [RunStore(ran.store).run(run_id).read_json("summary.json") for run_id in ran.ids]
    told = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert told == summaries[0]["metrics"]
    assert {result.dataset_name for result in card.data.eval_results} == {"synthetic-outdoor, protocol none"}
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == ("apache-2.0", "tiekd", "depth-estimation")
    both = [summary["metrics"]["abs_rel"] for summary in summaries[:2]]
    mean, spread = statistics.fmean(both), statistics.stdev(both)
    assert "mean ± standard deviation of 2 seeds (0, 1)" in card.text
    assert f"| abs_rel | {both[0]:.4f} | {mean:.4f} ± {spread:.4f} |" in card.text
    assert "4 test images, protocol `none`, with flip averaging" in card.text
    for words in (f"`{ran.ids[0]}`", "perfect", "L_DPM, L_DEPTH", "## Limits", "Apache-2.0", "@article"):
        assert words in card.text


def test_the_card_of_weights_without_a_run_has_no_numbers(ran, tiekd, tmp_path):
    weights = shutil.copy(ran.folder / "student.safetensors", tmp_path / "w.safetensors")
    outcome = tiekd("export", weights, "--format", "hub", "--out", tmp_path / "model")
    assert outcome.code == 0, outcome.err
    card = ModelCard.load(tmp_path / "model/README.md")
    assert card.data.eval_results is None
    assert "These weights were exported without their run, so there are no results." in card.text


def test_an_onnx_file_knows_its_run_and_what_it_takes_and_lost_is_told(tiekd, ran, in_folder, monkeypatch):
    outcome = tiekd("export", ran.folder, "--out", "student.onnx")
    assert outcome.code == 0, outcome.err
    *checks, told = outcome.out.splitlines()
    assert [line.partition(", ")[0] for line in checks] == ["batch 1", "batch 2", "batch 3"]
    assert re.fullmatch(r"student\.onnx: [\d.]+ MB, for images of any size, checked in onnxruntime against PyTorch", told)
    session = onnxruntime.InferenceSession(in_folder / "student.onnx")
    assert session.get_modelmeta().custom_metadata_map["run_id"] == ran.ids[0]

    same = Difference(1, (64, 96), 0.0, 0.0, 0.0)  # the same file again: tracing takes seconds
    monkeypatch.setattr(quantize, "export_onnx", lambda model, out, run_id, dpm: shutil.copy("student.onnx", out) and [same])
    options = ("--int8", "--max-loss", 1, "--calibration-frames", 2)
    outcome = tiekd("export", ran.folder, "--out", "int8.onnx", *options)
    assert outcome.code == 0, outcome.err
    check, loss, told = outcome.out.splitlines()
    assert check == f"before quantization, {same}"
    assert re.fullmatch(
        r"abs_rel [\d.]+ in float32, [\d.]+ in int8 \([+-].+%\), on 4 test frames, calibrated on 2 training frames", loss
    )
    about = onnxruntime.InferenceSession(in_folder / "int8.onnx").get_modelmeta().custom_metadata_map
    assert (about["run_id"], about["quantization"].endswith(loss)) == (ran.ids[0], True)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--format", "onx", "--out", "m"], "--format: unknown 'onx'; did you mean onnx? valid: hub, onnx"),
        (["--out", "model"], "--out model: expected the name of an .onnx file; a folder needs --format hub"),
        (["--format", "hub", "--out", "."], "--out .: is not empty; needed a new folder"),
        (["--format", "hub", "--int8", "--out", "m"], "--int8: is only used with --format onnx"),
        (["--max-loss", "0.1", "--out", "m.onnx"], "--max-loss 0.1: is only used with --int8"),
        (["--int8", "--data", "nowhere", "--out", "m.onnx"], "data.root"),
        (["--format", "hub", "--dpm", "--out", "m"], "--dpm: is only used with --format onnx; a model folder always gives"),
    ],
)
def test_a_mistaken_export_is_refused(mistake, ran, photo, words, complaint):
    assert mistake("export", ran.folder, *words).startswith(f"tiekd: {complaint}")
