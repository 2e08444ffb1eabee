import numpy as np
import pytest

from tiekd.config.specs import PROTOCOLS
from tiekd.errors import UserError
from tiekd.inference.protocols import check_protocol, eigen_nyu_crop, garg_crop, valid_mask

KITTI, NYU = (1e-3, 80.0), (1e-3, 10.0)  # m


def test_the_crops_are_the_published_ones():
    assert garg_crop((352, 1216)) == (143, 349, 43, 1172)
    assert eigen_nyu_crop((480, 640)) == (45, 471, 41, 601)


@pytest.mark.parametrize(
    ("protocol", "depth_range", "size", "name"),
    [("adabins-kb-garg", KITTI, (352, 1216), "garg"), ("nyu-eigen", NYU, (480, 640), "eigen_nyu")],
)
def test_the_masks_are_the_released_ones(oracle, frame_of, protocol, depth_range, size, name):
    label = f"{name}_{size[0]}x{size[1]}"
    box = oracle("metrics")["masks"][label]
    mask = valid_mask(PROTOCOLS[protocol], frame_of(np.ones(size)), depth_range)
    assert mask.sum() == box["n"]
    assert mask[slice(*box["rows"]), slice(*box["cols"])].all()


def test_bts_garg_on_a_cut_frame_is_garg_on_the_whole_frame(frame_of):
    size, top, left = (375, 1242), 23, 13
    rows = slice(*garg_crop(size)[:2]), slice(*garg_crop(size)[2:])
    whole = np.zeros(size, bool)
    whole[rows] = True
    cut = frame_of(np.ones((352, 1216)), size, (top, left))
    mask = valid_mask(PROTOCOLS["bts-garg"], cut, KITTI)
    assert np.array_equal(mask, whole[top:, left : left + 1216])
    assert not np.array_equal(mask, valid_mask(PROTOCOLS["adabins-kb-garg"], cut, KITTI))


def test_bts_garg_clips_what_the_view_does_not_show(frame_of):
    size, view = (400, 1300), (100, 300)
    mask = valid_mask(PROTOCOLS["bts-garg"], frame_of(np.ones(view), size, (300, 0)), KITTI)
    top, bottom, left, _ = garg_crop(size)
    assert top < 300
    assert mask[: bottom - 300, left:].all()
    assert mask.sum() == (bottom - 300) * (300 - left)


@pytest.mark.parametrize(
    ("protocol", "depth_range", "size", "cap"),
    [
        ("adabins-kb-garg", KITTI, (352, 1216), 80.0),
        ("bts-garg", KITTI, (352, 1216), 80.0),
        ("nyu-eigen", NYU, (480, 640), 10.0),
        ("none", NYU, (480, 640), 10.0),
        ("none", (1e-3, 7.0), (480, 640), 7.0),
    ],
)
def test_ground_truth_counts_strictly_between_the_caps(frame_of, protocol, depth_range, size, cap):
    def counts(depth: float) -> bool:
        return valid_mask(PROTOCOLS[protocol], frame_of(np.full(size, depth)), depth_range).any()

    single = np.float32
    assert counts(np.nextafter(single(1e-3), single(1)))
    assert counts(np.nextafter(single(cap), single(0)))
    assert not any(counts(depth) for depth in (0.0, 1e-3, cap, cap + 1))


def test_a_protocol_of_another_frame_size_is_refused_before_the_work(tiny):
    with pytest.raises(UserError, match=r"protocol nyu-eigen is defined on 480 x 640 frames, got 64 x 96"):
        check_protocol(tiny({"evaluation.protocol": "nyu-eigen"}))
    check_protocol(tiny())
