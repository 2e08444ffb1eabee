"""Small models of the library's own families with random weights, saved to folders as their published kin are."""

import hashlib
import importlib
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.hub_server import REVISION, Hub
from support.small_depth_models import save_small
from torch.nn import functional

from tiekd.config import build
from tiekd.data.inputs import open_teacher
from tiekd.deploy import huggingface
from tiekd.deploy.export_maps import make_maps
from tiekd.deploy.huggingface import HuggingFaceTeacher
from tiekd.errors import UserError

CPU = "cpu"
MAX_DEPTH = 80.0
FAMILIES = ("depth-anything", "zoedepth", "zoedepth-two-heads", "dpt", "dpt-padded", "glpn")
# Shapes of KITTI's frames, of their kb-crop and of NYU's, at a quarter, and one that divides by nothing.
SIZES = ((94, 311), (88, 304), (120, 160), (131, 67))


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """The folder of a small model, by its name in `support.small_depth_models`; not to be written to."""
    folders: dict[str, Path] = {}

    def save(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("models") / name.replace(" ", "-")
            save_small(name, folders[name])
        return folders[name]

    return save


@pytest.fixture(scope="session")
def teachers(saved):
    """A loaded teacher, by its name in `support.small_depth_models`."""
    loaded: dict[str, HuggingFaceTeacher] = {}

    def load(name: str) -> HuggingFaceTeacher:
        if name not in loaded:
            loaded[name] = HuggingFaceTeacher.load(str(saved(name)), MAX_DEPTH, CPU)
        return loaded[name]

    return load


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of a small model's folder with some settings of one of its files replaced; None takes a setting out."""

    def copy(name: str, file: str = "config.json", **settings) -> Path:
        for path in saved(name).iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        document = json.loads((tmp_path / file).read_text()) | settings
        (tmp_path / file).write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
        return tmp_path

    return copy


def noise(height: int, width: int) -> np.ndarray:
    """A frame of smooth random colours, uint8 [H, W, 3]."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    fine = functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return (255 * fine[0].permute(1, 2, 0)).round().to(torch.uint8).numpy()


def depth_of(teacher: HuggingFaceTeacher, image: np.ndarray) -> np.ndarray:
    """Its depth of one frame [H, W]."""
    return teacher.depth(image[None])[0]


def refuse(model: object, *, max_depth: float = MAX_DEPTH, metric: bool = False) -> str:
    """What is told when a model is refused."""
    with pytest.raises(UserError) as error:
        HuggingFaceTeacher.load(str(model), max_depth, CPU, metric)
    message = str(error.value)
    assert "\n" not in message
    return message


# -- depth ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_depth_has_the_frames_size_and_is_metres_in_range(teachers, family, size):
    depth = depth_of(teachers(family), noise(*size))
    assert depth.shape == size
    assert depth.dtype == np.float32
    assert np.isfinite(depth).all()
    assert 0 <= depth.min() < depth.max() <= MAX_DEPTH


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "dpt-padded"])
def test_depth_is_that_of_the_librarys_own_pipeline(teachers, saved, family):
    from transformers import pipeline

    image = noise(94, 311)
    found = pipeline("depth-estimation", model=str(saved(family)), device="cpu")(Image.fromarray(image))["predicted_depth"]
    np.testing.assert_allclose(depth_of(teachers(family), image), found.clamp(0, MAX_DEPTH).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_of_a_batch_have_the_depth_of_single_ones(teachers, family):
    images = np.stack([noise(94, 311), noise(94, 311)[:, ::-1]])
    singly = [depth_of(teachers(family), image) for image in images]
    np.testing.assert_allclose(teachers(family).depth(images), singly, rtol=1e-5, atol=1e-5)
    half = teachers(family).depth(images, "bf16")
    assert (half.dtype, half.shape) == (np.float32, (2, 94, 311))
    assert not np.array_equal(half, singly)


def test_depth_beyond_the_data_is_clamped(saved):
    image = noise(94, 311)
    whole = depth_of(HuggingFaceTeacher.load(str(saved("depth-anything")), MAX_DEPTH, CPU), image)
    middle = float(np.median(whole))
    clamped = depth_of(HuggingFaceTeacher.load(str(saved("depth-anything")), middle, CPU), image)
    np.testing.assert_array_equal(clamped, whole.clip(0, np.float32(middle)))


@pytest.mark.parametrize("family", ["zoedepth-two-heads", "dpt-padded"])
def test_a_frame_has_one_depth_whatever_was_asked_before(teachers, saved, family):
    first = depth_of(HuggingFaceTeacher.load(str(saved(family)), MAX_DEPTH, CPU), noise(94, 311))
    depth_of(teachers(family), noise(120, 160))
    np.testing.assert_array_equal(depth_of(teachers(family), noise(94, 311)), first)


def test_the_network_is_run_for_inference_alone(teachers):
    model, seen = teachers("zoedepth").model, []
    handle = model.register_forward_hook(lambda *_: seen.append(torch.is_inference_mode_enabled()))
    depth_of(teachers("zoedepth"), noise(*SIZES[0]))
    handle.remove()
    assert seen == [True]
    assert not any(module.training for module in model.modules())


def test_half_precision_weights_are_computed_with_in_float32(copied):
    folder = copied("depth-anything", dtype="float16", torch_dtype="float16")
    halved = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
    teacher = HuggingFaceTeacher.load(str(folder), MAX_DEPTH, CPU)
    assert {parameter.dtype for parameter in teacher.model.parameters()} == {torch.float32}


# -- alignment -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def brightness():
    """Makes a teacher's network answer with the brightness of what it is shown, 0 .. 2 m, in its own depth's size."""
    handles = []

    def answer(_module, _inputs, shown, outputs):
        light = shown["pixel_values"].mean(1, keepdim=True)
        light = 2 * (light - light.min()) / (light.max() - light.min())
        size = outputs.predicted_depth.shape[-2:]
        outputs.predicted_depth = functional.interpolate(light, size, mode="bilinear")[:, 0]
        return outputs

    def patch(teacher: HuggingFaceTeacher) -> HuggingFaceTeacher:
        handles.append(teacher.model.register_forward_hook(answer, with_kwargs=True))
        return teacher

    yield patch
    for handle in handles:
        handle.remove()


def displacement(teacher: HuggingFaceTeacher, height: int, width: int) -> float:
    """Nine lamps in a dark frame, near its borders and in its middle: how far in px one is from its place in the depth map."""
    rows, columns = np.mgrid[:height, :width]
    places = [(row, column) for row in (12, height / 2, height - 13) for column in (12, width / 2, width - 13)]
    away = np.stack([np.hypot(rows - row, columns - column) for row, column in places])
    frame = (255 * np.exp(-((away / 2.5) ** 2) / 2).max(0)).round().astype(np.uint8)
    depth = depth_of(teacher, np.repeat(frame[..., None], 3, axis=2))
    light = np.where(away < 10, depth, 0)
    light /= light.sum((1, 2), keepdims=True)
    found = np.stack([(light * rows).sum((1, 2)), (light * columns).sum((1, 2))], axis=1)
    return np.hypot(*(found - places).T).max()


# The library resizes ZoeDepth's input corner to corner, but its output edge to edge, as ZoeDepth's authors did.
BOUND = dict.fromkeys(FAMILIES, 0.05) | {"zoedepth": 0.3, "zoedepth-two-heads": 0.3}  # px


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_at_a_pixel_of_the_frame_is_at_that_pixel_of_the_map(teachers, brightness, family, size):
    assert displacement(brightness(teachers(family)), *size) < BOUND[family]


# The sizes to which the published models' processors bring a frame.
@pytest.mark.parametrize(
    ("family", "settings", "size"),
    [
        ("depth-anything", {"size": {"height": 518, "width": 518}}, (375, 1242)),
        ("zoedepth", {"size": {"height": 384, "width": 512}}, (375, 1242)),
        ("zoedepth", {"size": {"height": 384, "width": 512}}, (480, 640)),
        ("dpt-padded", {}, (352, 1216)),
    ],
)
def test_frames_of_true_size_stay_in_place(copied, brightness, family, settings, size):
    folder = copied(family, "preprocessor_config.json", **settings)
    teacher = brightness(HuggingFaceTeacher.load(str(folder), MAX_DEPTH, CPU))
    assert displacement(teacher, *size) < BOUND[family]


# -- what the depth was made by ------------------------------------------------------------------------------------------------


def test_a_folder_is_named_with_the_digest_of_its_weights(teachers, saved):
    import transformers

    made_by = teachers("depth-anything").made_by
    weights = saved("depth-anything") / "model.safetensors"
    assert made_by["weights"] == {"model.safetensors": hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert made_by["model"] == "depth-anything"
    assert made_by["revision"] is None
    assert made_by["architecture"] == "DepthAnythingForDepthEstimation"
    assert made_by["max_depth"] == 80
    assert made_by["processor"]["size"] == {"height": 112, "width": 112}
    assert made_by["transformers"] == transformers.__version__


@pytest.mark.parametrize("family", FAMILIES)
def test_the_manifest_of_maps_can_hold_it_and_names_no_folder_of_this_machine(teachers, saved, family):
    text = json.dumps(teachers(family).made_by, allow_nan=False)
    assert str(saved(family).parent) not in text


# -- refusals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relative depth-anything", "relative dpt", "relative depth-pro"])
def test_a_model_of_relative_depth_is_refused(saved, name):
    assert re.search(r"gives relative depth, a teacher's is in metres; valid: \S+Metric\S+, ", refuse(saved(name)))


@pytest.mark.parametrize("name", ["relative depth-anything", "relative dpt"])
def test_a_model_whose_maps_are_aligned_is_taken_as_it_is(saved, name):
    assert "or set teacher.align in the student's config" in refuse(saved(name))
    relative = HuggingFaceTeacher.load(str(saved(name)), MAX_DEPTH, CPU, relative=True)
    image = noise(64, 96)
    values = depth_of(relative, image)
    assert np.ptp(values) > 0
    middle = float(np.median(values))
    np.testing.assert_array_equal(depth_of(replace(relative, max_depth=middle), image), values.clip(0, middle))


def test_what_was_fine_tuned_to_metres_is_told_by_its_user_unless_its_config_says_otherwise(saved):
    assert "or --metric for one that was trained on metres" in refuse(saved("relative dpt"))
    teacher = HuggingFaceTeacher.load(str(saved("relative dpt")), MAX_DEPTH, CPU, metric=True)
    assert depth_of(teacher, np.zeros((32, 48, 3), np.uint8)).shape == (32, 48)
    assert "--metric" not in refuse(saved("relative depth-anything"), metric=True)


def test_what_a_relative_family_was_fine_tuned_to_may_be_stated_in_its_config(copied):
    folder = copied("relative dpt", depth_estimation_type="metric")
    assert HuggingFaceTeacher.load(str(folder), MAX_DEPTH, CPU).made_by["architecture"] == "DPTForDepthEstimation"


def test_a_model_whose_range_ends_before_the_datas_is_refused(saved):
    assert "its depth ends at 20 m, data.max_depth is 80 m" in refuse(saved("indoor depth-anything"))
    HuggingFaceTeacher.load(str(saved("indoor depth-anything")), 10.0, CPU)


def test_the_widest_of_several_heads_counts(saved):
    assert "its depth ends at 80 m, data.max_depth is 100 m" in refuse(saved("zoedepth-two-heads"), max_depth=100.0)


def test_other_models_of_the_library_are_refused(tmp_path):
    from transformers import ResNetConfig

    ResNetConfig().save_pretrained(tmp_path)
    assert "resnet is no depth model of the transformers library" in refuse(tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path):
    assert "no config of a model of the transformers library" in refuse(tmp_path)


@pytest.mark.parametrize("settings", [{"model_type": "nonesuch"}, {"depth_estimation_type": "meters"}])
def test_a_config_that_the_library_cannot_read_is_refused(copied, settings):
    assert re.search(
        r"no config of a model of the transformers library|gives relative depth", refuse(copied("dpt", **settings))
    )


def test_a_network_that_cannot_be_built_is_refused(copied):
    assert re.search(
        r"no config of a model|its network cannot be read", refuse(copied("depth-anything", head_hidden_size="wide"))
    )


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\nclass Config: pass\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonesuch", "auto_map": {"AutoConfig": "code.Config"}}))
    refuse(tmp_path)
    assert not (tmp_path / "was_run").exists()


def test_pickled_weights_are_refused(copied):
    folder = copied("dpt")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "other formats are pickles, which are not read" in refuse(folder)


def test_weights_that_broke_off_are_refused(copied):
    folder = copied("dpt")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "its network cannot be read" in refuse(folder)


def test_weights_of_another_size_are_refused(copied):
    assert "its network cannot be read" in refuse(copied("dpt", fusion_hidden_size=24))


def test_weights_that_lack_a_part_are_refused_and_not_made_up(copied):
    folder = copied("dpt")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    lacking = len(tensors) - len(kept)
    assert f"its weights lack {lacking} tensors, first head.head.0.bias" in refuse(folder)


def test_a_model_without_its_image_processor_is_refused(copied):
    folder = copied("dpt")
    (folder / "preprocessor_config.json").unlink()
    assert "its image processor cannot be read" in refuse(folder)


def test_an_image_processor_of_another_task_is_refused(copied):
    folder = copied("dpt", "preprocessor_config.json", image_processor_type="ViTImageProcessor")
    assert "its image processor ViTImageProcessor is not one of a depth model" in refuse(folder)


def test_an_image_processor_that_cuts_the_frame_is_refused(copied):
    folder = copied("dpt", "preprocessor_config.json", do_center_crop=True, crop_size={"height": 96, "width": 96})
    assert "its image processor cuts the frame" in refuse(folder)


def test_without_the_library_the_module_loads_and_a_model_is_refused(monkeypatch, saved):
    folder = saved("dpt")
    monkeypatch.setitem(sys.modules, "transformers", None)
    importlib.reload(huggingface)
    with pytest.raises(UserError, match=r"need the transformers library: pip install 'tiekd\[hf\]'$"):
        huggingface.HuggingFaceTeacher.load(str(folder), MAX_DEPTH, CPU)


# -- the hub -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(saved, tmp_path, monkeypatch) -> Iterator[Hub]:
    """A hub that has two models, with an empty cache before it."""
    from huggingface_hub import constants, file_download

    server = Hub({"tiny/dpt": saved("dpt"), "tiny/relative": saved("relative dpt")})
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    for module in (constants, file_download):  # releases differ in where they read it
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.go_away()
    thread.join()


def test_a_model_of_the_hub_is_downloaded_once_and_named_with_its_revision(hub, teachers):
    teacher = HuggingFaceTeacher.load("tiny/dpt", MAX_DEPTH, CPU)
    assert sorted(hub.fetched) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert teacher.made_by["model"] == "tiny/dpt"
    assert teacher.made_by["revision"] == REVISION
    assert teacher.made_by["weights"] == teachers("dpt").made_by["weights"]
    hub.go_away()
    again = HuggingFaceTeacher.load("tiny/dpt", MAX_DEPTH, CPU)
    assert again.made_by == teacher.made_by
    np.testing.assert_array_equal(depth_of(again, noise(*SIZES[0])), depth_of(teachers("dpt"), noise(*SIZES[0])))


@pytest.mark.parametrize("revision", ["main", REVISION])
def test_a_launch_makes_the_maps_of_a_model_of_the_hub_at_its_revision(hub, tmp_path, revision):
    """The data are rendered rooms, the teacher is named as a config names it."""
    data = {"dataset": "synthetic-indoor", "train_frames": 2, "test_frames": 1, "max_depth": MAX_DEPTH}
    data |= {"frame_size": [64, 96], "train_crop": [64, 96]}
    teacher = {"name": "dpt", "hf": f"tiny/dpt@{revision}"}
    execution = {"store": str(tmp_path / "store")}
    config = build({"data": data, "teacher": teacher, "loss": {"name": "mse"}, "execution": execution})
    assert make_maps(config)
    made_by = open_teacher(config).manifest.made_by
    assert (made_by["teacher"], made_by["model"], made_by["revision"]) == ("dpt", "tiny/dpt", REVISION)


def test_a_revision_that_the_hub_does_not_have_is_refused(hub):
    assert "model tiny/dpt: the Hugging Face hub has no revision 'nonesuch' of it" in refuse("tiny/dpt@nonesuch")


def test_a_model_is_refused_before_its_weights_are_downloaded(hub):
    assert "gives relative depth" in refuse("tiny/relative")
    assert sorted(hub.fetched) == ["config.json", "preprocessor_config.json"]


def test_a_name_that_the_hub_does_not_know_is_refused(hub):
    assert "no such folder, and the Hugging Face hub knows no such model" in refuse("tiny/nonesuch")


@pytest.mark.parametrize("name", ["no/such/folder", "/no/such/folder", "./nonesuch", "a name"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(hub, name):
    assert "no such folder, and no name of the Hugging Face hub" in refuse(name)


def test_a_model_that_is_not_in_the_cache_is_refused_where_no_hub_answers(hub):
    hub.go_away()
    assert "not in the cache of the Hugging Face hub, which is out of reach; `hf download tiny/dpt`" in refuse("tiny/dpt")


def test_a_hub_that_says_nothing_is_out_of_reach_after_a_while(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(huggingface, "HUB_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "which is out of reach" in refuse("tiny/dpt")


def test_weights_that_were_not_cached_before_the_hub_went_away_are_refused(hub):
    from huggingface_hub import snapshot_download

    snapshot_download("tiny/dpt", allow_patterns="*.json")
    hub.go_away()
    assert re.search(r"which is out of reach|no model\*.safetensors in it", refuse("tiny/dpt"))
