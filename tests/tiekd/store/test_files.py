import json
import os
import resource

import pytest

from tiekd.store.files import MAX_NAME, json_text, safe_name, write_atomically

TEXTS = [
    "a/b",
    "../../etc/passwd",
    "tiefe Maße",
    "深度",
    "n" * 230,
    "n" * 231,
    "",
    ".",
    "..",
    "CON",
    "nul.txt",
    "a\0b",
    "a\nb",
    "-x",
    "x.",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_becomes_a_name_that_can_be_written(tmp_path, text):
    name = safe_name(text)
    (tmp_path / f"{name}.parquet.partial-0123456789abcdef0123456789abcdef").touch()
    assert name.isascii()
    assert 0 < len(name) <= MAX_NAME
    assert set("/\\\0\n").isdisjoint(name)
    assert safe_name(name) == name


def test_different_texts_have_different_names():
    assert len({safe_name(text) for text in TEXTS}) == len(TEXTS)


@pytest.mark.parametrize("name", ["debug-kitti-kb-eigen", "lr=0.001, seed=0", "dpm_2"])
def test_a_plain_name_stays_as_it_is(name):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["n" * 255, "\u00e4" * 127], ids=["ASCII", "two bytes"])
def test_a_name_as_long_as_the_file_system_keeps_is_written(tmp_path, name):
    write_atomically(tmp_path / name, b"content")
    assert os.listdir(tmp_path) == [name]


def test_a_file_for_which_there_is_no_room_is_named_and_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '\S+/large'"):
            write_atomically(tmp_path / "large", bytes(2**21))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


def test_numbers_that_are_not_finite_become_null():
    value = {"a": [1.5, float("nan"), (float("inf"),)], "b": {"c": -float("inf"), "d": "NaN", "e": 0}}
    assert json.loads(json_text(value, indent=1), parse_constant=None) == {
        "a": [1.5, None, [None]],
        "b": {"c": None, "d": "NaN", "e": 0},
    }
