"""The page in a real browser, driven by keys and clicks, compared with the store and with PyTorch."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from support.viewer_page import EVIL, SCREEN, Page

from reports.viewer.encoding import DEPTH_ERROR, dequantize_depth, dpm_error, quantize_depth, subsample, subsample_sparse
from reports.viewer.index import DEPTH_COLORS
from tiekd.bins import DepthBins, expected_depth
from tiekd.config.labels import METRICS
from tiekd.data import open_frames
from tiekd.data.teacher_maps import open_maps
from tiekd.data.transforms import normalize_image
from tiekd.inference.predict import predict
from tiekd.losses import dpm_target
from tiekd.models.checkpoint import load_network

pytestmark = pytest.mark.slow
VIEWS = """[...document.querySelectorAll('.panel')].map(p => {
  const { x, y, width, height } = p.querySelector('.view').getBoundingClientRect();
  return { data: p.dataset.id, x, y, width, height };
})"""


@pytest.fixture(scope="module")
def expected(viewed):
    """Results of PyTorch for the first frame: depths [H, W] in m by result, and both distributions."""
    depths = {}
    for name in ("baseline", "tie-kd"):
        network, config = load_network(viewed.store / "runs" / viewed.runs[name] / "student.safetensors")
        source = open_frames(config.data, "test")
        frame = source.load(0)
        predicted = predict(network.eval(), normalize_image(frame.image)[None], config)
        depths[viewed.runs[name]] = predicted.depth[0, 0].numpy()
    maps = open_maps(config.teacher.maps)
    depth = torch.from_numpy(maps.load(source.keys[0], frame.size))
    depths[f"teacher-{maps.digest()[:12]}"], depths["truth"] = depth.numpy(), frame.depth_gt
    bins = DepthBins(config.bins.n_bins, *config.data.depth_range, config.bins.spacing)
    return {"depth": depths, "bins": bins, "student": predicted.dpm, "target": dpm_target(config)(depth[None, None])}


def teacher_of(page) -> str:
    return page.tab.get_attribute(".panel[data-id^=teacher]", "data-id")


def reading(page, kind: str) -> list[str]:
    """A row of the table below the chart: depth, expected depth, standard deviation."""
    return page.texts(f".readings tr:has(th.{kind}) td")


def meters(text: str) -> float:
    return float(text.removesuffix(" m").replace("−", "-").replace("±", "").strip())


def shown_at(page, name: str) -> float:
    """The depth or difference at the selected pixel in a panel's caption."""
    return meters(page.text(f"{page.panel(name)} .value"))


# -- images -----------------------------------------------------------------------------------------------------------------


def test_arrow_keys_move_between_images(page):
    assert page.text("#count") == "1 / 4"
    page.press("ArrowRight", "ArrowRight")
    assert page.text("#count") == "3 / 4"
    page.press("ArrowLeft")
    assert page.text("#count") == "2 / 4"
    page.press("End", "ArrowRight")
    assert page.text("#count") == "4 / 4"
    page.press("Home", "ArrowLeft")
    assert page.text("#count") == "1 / 4"


def test_ground_truth_teacher_and_students_are_side_by_side(page, viewed):
    ids = page.tab.eval_on_selector_all(".panel", "panels => panels.map(p => p.dataset.id)")
    assert ids == ["image", "truth", teacher_of(page), viewed.runs["baseline"], viewed.runs["tie-kd"]]
    assert page.tab.evaluate("document.querySelector('.panel img').naturalWidth") == 96


def test_all_depth_maps_share_one_color_scale(page, expected):
    near, far = (float(re.search(r"[\d.]+", text)[0]) for text in page.texts("#depth-legend .ticks span")[:2])
    table = (colormaps[DEPTH_COLORS](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    for name, depth in expected["depth"].items():
        depth = dequantize_depth(quantize_depth(subsample_sparse(depth)))
        with np.errstate(divide="ignore"):
            share = np.log(depth / near) / np.log(far / near)
        colors = table[np.clip(np.floor(share * 255 + 0.5), 0, 255).astype(int, copy=False) if name != "truth" else 0]
        if name == "truth":
            measured = np.clip(np.floor(np.where(depth > 0, share, 0) * 255 + 0.5), 0, 255).astype(int)
            colors = np.where(depth[..., None] > 0, table[measured], 0x6E)
        off = np.abs(np.array(page.pixels(name)) - colors.reshape(-1, 3)).max(axis=1)
        assert np.quantile(off, 0.999) <= 8  # rounding in float32 may select the next color


def test_metrics_table_matches_the_store(page, viewed):
    page.press("ArrowRight")
    rows = pd.read_parquet(viewed.store / "runs" / viewed.runs["tie-kd"] / "images.parquet")
    cells = page.texts(f".metrics tr[data-id='{viewed.runs['tie-kd']}'] td")
    assert cells[3:12] == [f"{rows.loc[1, metric]:.3f}" for metric in METRICS]
    assert cells[12:] == [str(rows.loc[1, "n_valid"]), "none"]


def test_images_can_be_sorted_by_result_and_metric_worst_first(page, viewed):
    rows = pd.read_parquet(viewed.store / "runs" / viewed.runs["tie-kd"] / "images.parquet")
    numbers = "#frames .number"
    page.press("w")
    assert page.texts(numbers) == [str(i + 1) for i in rows["abs_rel"].sort_values(ascending=False).index]
    page.tab.select_option("#metric", "delta1")
    page.settle()
    assert page.texts(numbers) == [str(i + 1) for i in rows["delta1"].sort_values(kind="stable").index]
    page.tab.select_option("#sort", viewed.runs["baseline"])
    page.settle()
    rows = pd.read_parquet(viewed.store / "runs" / viewed.runs["baseline"] / "images.parquet")
    assert page.texts(numbers) == [str(i + 1) for i in rows["delta1"].sort_values(kind="stable").index]
    page.press("Home")
    assert page.text("#frames [aria-current] .number") == page.texts(numbers)[0]


@pytest.mark.parametrize(("higher", "places"), [(False, [3, 1, 0, 2]), (True, [1, 3, 0, 2])])
def test_images_without_a_value_are_sorted_last(page, higher, places):
    page.tab.evaluate(
        "values => { window.made = { metrics: Float32Array.from(values, v => v ?? NaN) } }", [None, 0.1, None, 0.4]
    )
    order = "higher => Frames.order({ keys: ['a', 'b', 'c', 'd'] }, made, metric = { higher }, [metric])"
    assert page.tab.evaluate(order, higher) == places


def test_selected_result_lists_links_to_its_runs(page, viewed):
    page.click(f"{page.panel(viewed.runs['tie-kd'])} figcaption")
    assert page.texts("#runs li") == [f"{viewed.runs['tie-kd']} seed 0 (shown)", f"{viewed.runs['seed 1']} seed 1"]
    folder = Path(page.tab.evaluate("decodeURIComponent(new URL(document.querySelector('#runs a').href).pathname)"))
    assert folder == viewed.store / "runs" / viewed.runs["tie-kd"]


# -- differences ------------------------------------------------------------------------------------------------------------


def test_digit_key_toggles_signed_differences(page, viewed, expected):
    student, baseline = viewed.runs["tie-kd"], viewed.runs["baseline"]
    page.press("p")
    before = page.pixels(student)
    x, y = map(int, page.state()["pixel"].split(","))
    depths = {name: float(depth[y, x]) for name, depth in expected["depth"].items()}
    assert shown_at(page, student) == pytest.approx(depths[student], rel=DEPTH_ERROR, abs=0.01)
    page.press("2")
    bound = DEPTH_ERROR * (depths[student] + depths[baseline]) + 0.01
    assert abs(shown_at(page, student) - (depths[student] - depths[baseline])) <= bound
    assert shown_at(page, baseline) == pytest.approx(depths[baseline], rel=DEPTH_ERROR, abs=0.01)
    assert page.pixels(student) != before
    page.press("2")
    assert page.pixels(student) == before
    assert "diff" not in page.state()


def test_differences_are_red_where_the_result_is_farther(page, viewed, expected):
    student = viewed.runs["tie-kd"]
    page.press("1")
    difference = (subsample(expected["depth"][student]) - subsample(expected["depth"][teacher_of(page)])).ravel()
    pixels = np.array(page.pixels(student))
    span = float(page.state()["span"])
    farther, nearer = difference > span / 4, difference < -span / 4
    assert farther.any()
    assert nearer.any()
    assert (pixels[farther, 0] > pixels[farther, 2]).all()
    assert (pixels[nearer, 0] < pixels[nearer, 2]).all()


def test_zero_key_shows_errors_and_gray_without_ground_truth(page, viewed, expected):
    page.press("0")
    unmeasured = subsample_sparse(expected["depth"]["truth"]).ravel() == 0
    pixels = np.array(page.pixels(viewed.runs["tie-kd"]))
    assert unmeasured.any()
    assert (pixels[unmeasured] == 0x6E).all()


def test_bracket_keys_change_the_difference_scale(page):
    page.press("1")
    wide = page.texts("#difference-legend .ticks span")[-1]
    page.press("[")
    assert meters(page.texts("#difference-legend .ticks span")[-1].lstrip("+")) == meters(wide.lstrip("+")) / 2


# -- distributions ----------------------------------------------------------------------------------------------------------


def test_click_shows_target_and_student_distribution(page, viewed, expected):
    student = viewed.runs["tie-kd"]
    page.click(f"{page.panel(student)} canvas", position={"x": 60, "y": 40})
    x, y = map(int, page.state()["pixel"].split(","))
    bins = expected["bins"]
    bound = dpm_error(bins.centers.numpy()) + 0.006  # the page shows two digits
    for kind, name, dpm in (("student", student, expected["student"]), ("teacher", teacher_of(page), expected["target"])):
        depth, mean, spread = map(meters, reading(page, kind))
        p = dpm[0, :, y, x].double()
        exact = expected_depth(dpm, bins)[0, 0, y, x].item()
        assert depth == pytest.approx(float(expected["depth"][name][y, x]), rel=DEPTH_ERROR, abs=0.006)
        assert abs(mean - exact) <= bound
        centers = bins.centers.double()
        assert spread == pytest.approx(((p * (centers - exact) ** 2).sum().sqrt()).item(), rel=0.02, abs=0.05)
    assert page.tab.locator(".dpm path.teacher").count() == page.tab.locator(".dpm path.student").count() == 1
    assert page.tab.locator(".dpm .tick").all_text_contents()[-1].endswith(" m")


def test_mouse_shows_the_depths_under_the_pointer(page, viewed, expected):
    captions = page.texts(".panel output")
    box = page.tab.locator(f"{page.panel(viewed.runs['baseline'])} .view").bounding_box()
    across, down = box["width"] / 3, box["height"] / 2
    page.tab.mouse.move(box["x"] + across, box["y"] + down)
    for name in (viewed.runs["tie-kd"], viewed.runs["baseline"]):
        height, width = expected["depth"][name].shape
        depth = expected["depth"][name][int(height * down / box["height"]), int(width * across / box["width"])]
        assert shown_at(page, name) == pytest.approx(depth, rel=DEPTH_ERROR, abs=0.01)
    page.tab.mouse.move(0, 0)
    assert page.texts(".panel output") == captions


def test_expected_depth_of_the_chart_matches_the_depth_map(page):
    for key in ("p", "Shift+ArrowDown", "Shift+ArrowRight", "Shift+ArrowUp", "ArrowRight"):
        page.press(key)
        depth, mean, _ = map(meters, reading(page, "student"))
        assert abs(mean - depth) <= 80 / (2 * 4095) + 0.01


def test_regression_head_shows_a_note_instead_of_a_chart(page, viewed):
    page.click(f"{page.panel(viewed.runs['baseline'])} canvas")
    assert "regression head" in page.text("#distribution")
    assert page.tab.locator(".dpm").count() == 0


def test_nearest_measurement_is_shown_for_a_pixel_without_ground_truth(page, expected):
    truth = expected["depth"]["truth"]
    page.press("p")
    for _ in range(8):
        x, y = map(int, page.state()["pixel"].split(","))
        near = truth[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        shown = reading(page, "truth")[0]
        if truth[y, x] > 0:
            assert meters(shown) == pytest.approx(truth[y, x], rel=DEPTH_ERROR, abs=0.01)
        elif shown != "none":
            assert (np.abs(near[near > 0] / meters(shown) - 1) < 0.003).any()
        page.press("Shift+ArrowDown")


# -- the address --------------------------------------------------------------------------------------------------------------


def test_address_restores_the_view(page, viewed):
    page.press("ArrowRight", "p", "Shift+ArrowDown", "1", "[", "m", "w")
    page.click(f".metrics tr[data-id='{viewed.runs['baseline']}'] input")
    state, count, pixels = page.state(), page.text("#count"), page.pixels(viewed.runs["tie-kd"])
    assert set(state) == {"data", "image", "show", "focus", "diff", "pixel", "sort", "metric", "span"}
    page.tab.reload()
    page.settle()
    assert (page.state(), page.text("#count"), page.pixels(viewed.runs["tie-kd"])) == (state, count, pixels)
    assert page.tab.locator(page.panel(viewed.runs["baseline"])).count() == 0


def test_edited_address_changes_the_view(page):
    second = page.tab.get_attribute("#frames li:nth-child(2)", "title")
    page.tab.evaluate("key => { document.body.dataset.ready = 'false'; location.hash = `image=${key}` }", second)
    page.settle()
    assert page.text("#count") == "2 / 4"


def test_address_with_only_a_run_selects_its_data_set(page, viewed):
    page.open(f"focus={viewed.runs['indoor']}")
    assert page.text("#count") == "1 / 2"
    assert page.tab.get_attribute(".panel.focused", "data-id") == viewed.runs["indoor"]


def test_unknown_names_in_the_address_are_replaced(page):
    page.open("data=x&image=x&show=x&focus=x&diff=x&pixel=1e9,-5&sort=x&metric=x&span=-1")
    assert page.text("#count") == "1 / 4"
    x, y = map(int, page.state()["pixel"].split(","))
    assert 0 <= x < 96
    assert 0 <= y < 64


# -- keys ---------------------------------------------------------------------------------------------------------------------


def test_keys_cover_help_selection_visibility_and_data_set(page, viewed):
    page.press("?")
    assert page.tab.evaluate("document.getElementById('help').open")
    assert len(page.texts("#keys tr")) >= 14
    page.press("Escape")
    assert not page.tab.evaluate("document.getElementById('help').open")
    selected = page.tab.get_attribute(".panel.focused", "data-id")
    page.press("ArrowUp")
    assert page.tab.get_attribute(".panel.focused", "data-id") == viewed.runs["baseline"] != selected
    page.press("h")
    assert page.tab.locator(page.panel(viewed.runs["baseline"])).count() == 0
    page.press("a")
    assert page.tab.locator(page.panel(viewed.runs["baseline"])).count() == 1
    page.press("p", "1", "Escape")
    assert not {"pixel", "diff"} & set(page.state())
    page.press("d")
    assert page.text("#count") == "1 / 2"


def test_hidden_results_stay_hidden_in_another_data_set(page, viewed):
    page.click(f".metrics tr[data-id='{viewed.runs['tie-kd']}'] input")
    page.press("d")
    assert page.text("#count") == "1 / 2"
    page.press("d")
    assert page.text("#count") == "1 / 4"
    shown = page.tab.eval_on_selector_all(".panel", "panels => panels.map(p => p.dataset.id)")
    assert viewed.runs["baseline"] in shown
    assert viewed.runs["tie-kd"] not in shown
    page.press("a", "d", "d")
    assert page.tab.locator(page.panel(viewed.runs["tie-kd"])).count() == 1


def test_every_result_has_a_key(page):
    keys = page.tab.evaluate("[...Keys.RESULTS]")
    assert len(set(keys)) == len(keys) >= 28
    assert set(keys).isdisjoint("wmphads0")


def test_touching_a_key_shows_differences(page, viewed):
    page.click(f"{page.panel(viewed.runs['baseline'])} .key")
    assert page.state()["diff"] == viewed.runs["baseline"]


@pytest.mark.parametrize("way", ["key", "button"])
def test_pictures_are_saved_as_they_are_shown(page, viewed, tmp_path, way):
    """The saved file has the pixels of each picture in its place, also of a page opened as a file."""
    page.press("p")
    with page.tab.expect_download() as download:
        if way == "key":
            page.tab.keyboard.press("s")
        else:
            page.tab.click("#save")
    assert download.value.suggested_filename == "synthetic-outdoor_test_scene_000_0000.png"
    download.value.save_as(tmp_path / "saved.png")
    saved = np.asarray(Image.open(tmp_path / "saved.png").convert("RGB")).astype(int)
    area = page.tab.locator("#panels").bounding_box()
    views = {box["data"]: box for box in page.tab.evaluate(VIEWS)}
    left = min(view["x"] for view in views.values()) - 8
    for name in (viewed.runs["tie-kd"], teacher_of(page)):
        view = views[name]
        x, y = int(2 * (view["x"] - left)), int(2 * (view["y"] - area["y"] + 48))
        part = saved[y : y + int(2 * view["height"]), x : x + int(2 * view["width"])]
        pixels = np.array(page.pixels(name)).reshape(64, 96, 3)
        scaled = np.asarray(Image.fromarray(pixels.astype(np.uint8)).resize(part.shape[1::-1], Image.Resampling.BILINEAR))
        assert np.median(np.abs(part - scaled)) <= 2
    image = views["image"]
    x, y = int(2 * (image["x"] - left)), int(2 * (image["y"] - area["y"] + 48))
    assert saved[y : y + 40, x : x + 200].std() > 3  # the photograph, not the background


def test_user_text_is_never_interpreted_as_html(page):
    assert EVIL in page.texts(".panel .name")[2]
    page.click(f"{page.panel(teacher_of(page))} canvas")
    page.press("1", "w")
    assert page.tab.title() == "tiekd viewer"
    assert page.tab.locator("img").count() == 1


@pytest.mark.parametrize("size", [(1024, 640), (1366, 768), (2560, 1440)])
def test_all_pictures_fit_on_the_screen(page, size):
    page.tab.set_viewport_size({"width": size[0], "height": size[1]})
    page.open("")
    boxes = [box.bounding_box() for box in page.tab.locator(".panel").all()]
    assert all(box["y"] + box["height"] <= size[1] and box["x"] + box["width"] <= size[0] for box in boxes)
    assert page.tab.evaluate("document.documentElement.scrollWidth") == size[0]
    page.tab.set_viewport_size(SCREEN)


def test_a_phone_scrolls_down_and_not_aside(page, viewed):
    page.tab.set_viewport_size({"width": 390, "height": 844})
    page.open("")
    assert page.tab.evaluate("document.documentElement.scrollWidth") == 390
    assert page.tab.locator(".panel").first.bounding_box()["y"] < 300
    page.click("#next")
    assert page.text("#count") == "2 / 4"
    assert page.tab.evaluate("window.scrollY") == 0
    page.tab.set_viewport_size(SCREEN)


# -- served -------------------------------------------------------------------------------------------------------------------


def test_page_is_served_on_loopback_until_interrupted(chromium, viewed):
    command = [sys.executable, "-m", "tiekd", "view", str(viewed.store), "--out", str(viewed.folder), "--serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = next(line.strip() for line in server.stdout if line.startswith("http"))
        assert address.startswith("http://127.0.0.1:")
        page = Page(chromium, address)
        page.open("")
        page.press("ArrowRight", "p", "1")
        assert page.text("#count") == "2 / 4"
        assert page.tab.locator(".dpm").count() == 1
        assert page.errors == []
        page.tab.close()
    finally:
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=240)
    assert server.returncode == 0, err
