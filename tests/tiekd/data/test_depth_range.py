import numpy as np
import pytest

from tiekd.data.depth_range import check_ratio, check_reach, check_units
from tiekd.errors import UserError

ROOM = np.linspace(0.7, 9, 400).reshape(20, 20)  # m
STREET = np.linspace(4, 100, 400).reshape(20, 20)


@pytest.mark.parametrize(("depth", "cap"), [(ROOM, 10.0), (STREET, 80.0)])
@pytest.mark.parametrize(("unit", "factor"), [("mm", 1e3), ("cm", 1e2), ("km", 1e-3)])
def test_maps_in_another_unit_are_refused_with_their_median_and_unit(depth, cap, unit, factor):
    check_units([depth], cap, "maps")
    median = np.median(depth) * factor
    expected = rf"^maps: 1 of 1 maps lie .* \(median {median:.4g} m, data.max_depth {cap:g} m\); probably in {unit}, needed m$"
    with pytest.raises(UserError, match=expected.replace("+", r"\+")):
        check_units([depth * factor], cap, "maps")


def test_maps_that_were_clipped_at_the_cap_or_have_no_depth_are_refused():
    with pytest.raises(UserError, match=r"almost everywhere at the cap .*; probably in mm or cm when they were made"):
        check_units([np.full((4, 4), 10.0)], 10.0, "maps")
    with pytest.raises(UserError, match=r"1 of 1 maps have no depth above 0 \(median 0 m, data.max_depth 10 m\); needed m"):
        check_units([np.zeros((4, 4))], 10.0, "maps")


def test_a_sky_at_the_cap_sparse_depth_and_an_odd_frame_are_no_mistake():
    sky = np.full((20, 20), 80.0)
    sky[-1] = STREET[0]  # 5 % of the map
    sparse = np.zeros((20, 20))
    sparse[10, 10] = 12.0
    check_units([sky], 80.0, "maps")
    check_units([sparse], 80.0, "maps")
    check_units([STREET, STREET, STREET, np.zeros((20, 20))], 80.0, "maps")
    check_units([], 80.0, "maps")


def test_maps_of_mixed_units_are_refused():
    with pytest.raises(UserError, match=r"2 of 4 maps lie almost everywhere"):
        check_units([ROOM, ROOM, ROOM * 1000, ROOM * 1000], 10.0, "maps")


@pytest.mark.parametrize(("depth", "cap"), [(ROOM, 10.0), (STREET, 80.0)])
def test_a_factor_of_ten_is_remarked_upon(depth, cap):
    assert check_units([depth], cap, "maps") == ""
    assert "maps: 1 of 1 maps have an unusual median" in check_units([depth / 20], cap, "maps")
    assert check_units([depth * 10], cap, "maps").endswith("; probably in dm, needed m")


@pytest.mark.parametrize(
    ("ratio", "hint"), [(10.4, "dm"), (3.2, "feet"), (40, "inches"), (93, "cm"), (1e3, "mm"), (0.0012, "km"), (0.1, "")]
)
def test_the_ratio_to_ground_truth_tells_the_unit(ratio, hint):
    expected = (
        f"maps: their median is {ratio:.3g} times that of the ground truth; {f'probably in {hint}, ' if hint else ''}needed m"
    )
    assert check_ratio(ratio, "maps", "") == expected


def test_ratios_of_honest_predictions_and_of_none_are_not_remarked_upon():
    assert {check_ratio(ratio, "maps", "") for ratio in (0.4, 0.74, 1.53, 2.53, float("nan"))} == {""}


def test_a_range_must_reach_as_far_as_the_data():
    check_reach("weights w", 80.0, 10.0)
    with pytest.raises(UserError, match=r"^weights w: its depth ends at 10 m, data.max_depth is 80 m; .* lower data"):
        check_reach("weights w", 10.0, 80.0)
    with pytest.raises(UserError, match=r"the cap of protocol bts-garg is 80 m; use a model of the data's range$"):
        check_reach("weights w", 10.0, 80.0, "the cap of protocol bts-garg")
