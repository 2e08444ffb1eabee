import json

from tiekd.store.files import json_text


def test_numbers_that_are_not_finite_become_null():
    value = {"a": [1.5, float("nan"), (float("inf"),)], "b": {"c": -float("inf"), "d": "NaN", "e": 0}}
    assert json.loads(json_text(value, indent=1), parse_constant=None) == {
        "a": [1.5, None, [None]],
        "b": {"c": None, "d": "NaN", "e": 0},
    }
