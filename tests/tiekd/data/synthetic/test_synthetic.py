import time
from pathlib import Path

import numpy as np
import pytest

from tiekd.config import build
from tiekd.config.specs import DATASETS
from tiekd.data import check_inputs, open_frames
from tiekd.data.synthetic import synthesize
from tiekd.data.synthetic.frame import SCENE_KINDS, SceneSettings
from tiekd.errors import UserError

OUTDOOR = SceneSettings("synthetic-outdoor", "train", (64, 208), 0)
INDOOR = SceneSettings("synthetic-indoor", "train", (96, 128), 0)


@pytest.mark.parametrize("spec", [OUTDOOR, INDOOR])
def test_a_frame_depends_on_its_settings_and_index_only(spec):
    first, again = spec.render(5), spec.render(5)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.depth_gt, again.depth_gt)
    others = [
        spec.render(6),
        SceneSettings(spec.dataset, "test", spec.frame_size, spec.scene_seed).render(5),
        SceneSettings(spec.dataset, spec.split, spec.frame_size, 1).render(5),
    ]
    for other in others:
        assert np.abs(first.depth_exact - other.depth_exact).max() > 0.1


@pytest.mark.parametrize("spec", [OUTDOOR, INDOOR])
def test_types_and_sizes(spec):
    frame = spec.render(0)
    assert (frame.image.dtype, frame.image.shape) == (np.uint8, (*spec.frame_size, 3))
    for depth in (frame.depth_gt, frame.depth_exact):
        assert (depth.dtype, depth.shape) == (np.float32, spec.frame_size)
        assert np.isfinite(depth).all()


@pytest.mark.parametrize("spec", [OUTDOOR, INDOOR])
def test_ground_truth_equals_the_exact_depth(spec):
    for index in range(0, 12, 4):
        frame = spec.render(index)
        measured = frame.depth_gt > 0
        np.testing.assert_array_equal(frame.depth_gt[measured], frame.depth_exact[measured])


def test_outdoor_ground_truth_is_sparse_like_a_lidar():
    for index in range(0, 32, 4):
        frame = OUTDOOR.render(index)
        measured = frame.depth_gt > 0
        assert 0.05 < measured.mean() < 0.2
        assert not measured[:16].any()
        assert measured[32:].mean() > 0.1
        assert frame.depth_gt.max() <= 80


def test_indoor_ground_truth_is_dense_with_holes():
    for index in range(0, 32, 4):
        frame = INDOOR.render(index)
        assert 0.85 < (frame.depth_gt > 0).mean() < 1
        assert (frame.depth_exact > 0).all()
        assert frame.depth_exact.max() < 10


def test_the_camera_moves_forward_through_one_scene():
    nearest = [np.median(OUTDOOR.render(index).depth_exact[40:, 90:118]) for index in range(4)]
    assert np.ptp(nearest) < 3  # the road ahead of one camera
    far = [OUTDOOR.render(index).image.astype(float).mean(axis=(0, 1)) for index in (0, 1, 4)]
    assert np.abs(far[0] - far[1]).max() < np.abs(far[0] - far[2]).max()


def test_image_and_depth_share_their_edges():
    """Where depth jumps, neighboring pixels differ more in color than elsewhere."""
    jumps, flats = [], []
    for index in range(0, 24, 4):
        frame = INDOOR.render(index)
        contrast = np.abs(np.diff(frame.image.astype(float), axis=1)).mean(axis=-1)
        jump = np.abs(np.diff(frame.depth_exact, axis=1)) > 0.5
        jumps.append(contrast[jump].mean())
        flats.append(contrast[~jump].mean())
    assert np.mean(jumps) > 3 * np.mean(flats)


def test_keys_groups_and_digests(section):
    config = section("synthetic-outdoor", train_frames=9, test_frames=5)
    train, test = open_frames(config, "train"), open_frames(config, "test")
    assert (len(train), len(test)) == (9, 5)
    assert train.keys[5] == "train/scene_001/0001"
    assert train.group(5) == "train/scene_001"
    assert not set(train.keys) & set(test.keys)
    assert len({train.digest(), test.digest()}) == 2
    assert train.digest() == open_frames(config, "train").digest()
    assert train.digest() != open_frames(config.model_copy(update={"scene_seed": 1}), "train").digest()
    frame = train.load(8)
    assert (frame.size, frame.frame_size, frame.origin) == ((64, 208), (64, 208), (0, 0))
    with pytest.raises(IndexError):
        train.load(9)


def test_callers_get_their_own_arrays(section):
    source = open_frames(section("synthetic-indoor", train_frames=1), "train")
    source.load(0).depth_gt[:] = -1
    source.load(0).image[:] = 0
    assert source.load(0).depth_gt.max() > 0
    assert source.load(0).image.max() > 0


def test_number_of_frames_is_required(section):
    with pytest.raises(UserError, match=r"data\.train_frames is needed for synthetic-outdoor"):
        open_frames(section("synthetic-outdoor", train_frames=None), "train")


def test_scene_kinds_are_the_rendered_data_sets():
    assert list(SCENE_KINDS) == [name for name, spec in DATASETS.items() if spec.rendered]


def test_a_frame_takes_milliseconds():
    OUTDOOR.render(0)
    start = time.process_time()
    for index in range(0, 20, 4):
        OUTDOOR.render(index)
    assert (time.process_time() - start) / 5 < 0.2


@pytest.fixture(scope="module")
def kitti_like(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("layouts") / "kitti"
    summary = synthesize(out, "kitti", train_frames=1, test_frames=2, seed=3)
    assert (summary["dataset"], summary["train_frames"], summary["test_frames"]) == ("kitti", 1, 2)
    return out


@pytest.fixture(scope="module")
def nyu_like(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("layouts") / "nyu"
    synthesize(out, "nyu", train_frames=2, test_frames=1, seed=3)
    return out


def test_kitti_layout_round_trip(kitti_like, section):
    config = section("kitti", root=str(kitti_like))
    train, test = open_frames(config, "train"), open_frames(config, "test")
    rendered = SceneSettings("synthetic-outdoor", "train", (375, 1242), 3).render(0)
    frame = train.load(0)
    assert (frame.frame_size, frame.origin) == ((375, 1242), (23, 13))
    np.testing.assert_array_equal(frame.image, rendered.image[23:, 13:1229])
    assert np.abs(frame.depth_gt - rendered.depth_gt[23:, 13:1229]).max() <= 0.5 / 256
    assert (len(test), test.n_without_ground_truth) == (2, 1)
    assert (kitti_like / "kitti_eigen_test.txt").read_text().splitlines()[1].split()[1] == "None"
    assert {train.group(0)}.isdisjoint({test.group(0)})


def test_nyu_layout_round_trip(nyu_like, section):
    config = section("nyu", root=str(nyu_like))
    train, test = open_frames(config, "train"), open_frames(config, "test")
    assert (nyu_like / "nyu_train.txt").read_text().startswith("/rendered_train_0000/rgb_00000.jpg /rendered_train")
    assert not (nyu_like / "nyu_test.txt").read_text().startswith("/")
    rendered = SceneSettings("synthetic-indoor", "train", (480, 640), 3).render(1)
    frame = train.load(1)
    assert np.abs(frame.depth_gt - rendered.depth_gt).max() <= 0.5 / 1000 + 1e-6
    assert np.abs(frame.image.astype(float) - rendered.image).mean() < 4  # a JPEG
    assert test.load(0).size == (480, 640)


def test_a_written_data_set_passes_the_checks_of_a_run(kitti_like):
    check_inputs(
        build({"data": {"dataset": "kitti", "root": str(kitti_like)}, "loss": {"name": "si", "target": "ground_truth"}})
    )


def test_synthesize_is_deterministic(nyu_like, tmp_path):
    synthesize(tmp_path / "again", "nyu", train_frames=2, test_frames=1, seed=3)
    files = [path.relative_to(nyu_like) for path in nyu_like.rglob("*") if path.is_file()]
    assert len(files) == 8
    for file in files:
        assert (nyu_like / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_synthesize_refuses_a_folder_with_content(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty; name a new folder"):
        synthesize(tmp_path, "nyu", 1, 1)
    with pytest.raises(UserError, match="not empty"):
        synthesize(tmp_path / "mine.txt", "nyu", 1, 1)
    with pytest.raises(UserError, match="layout: unknown 'kiti'; did you mean kitti"):
        synthesize(tmp_path / "new", "kiti", 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
