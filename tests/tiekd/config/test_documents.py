"""Documents are untrusted: what they may contain, and how large they may be."""

import pytest
import yaml

from tiekd.config.documents import MAX_BYTES, parse_overrides, parse_yaml, read_document
from tiekd.errors import UserError


def bomb() -> str:
    """Nine levels, each with nine aliases of the one before."""
    return "\n".join(["a0: &a0 x", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))])


HOSTILE = {
    "aliases": (bomb(), "has more than 200000 values with its aliases expanded"),
    "brackets": ("[" * 5000, "not valid YAML: .*nest"),
    "closed brackets": ("a: " + "[" * 900 + "]" * 900, "is nested deeper than 50 levels"),
    "braces": ("{a: " * 60 + "1" + "}" * 60, "is nested deeper than 50 levels"),
    "a list in itself": ("a: &a [*a]", "is nested deeper than 50 levels, or contains itself"),
    "a mapping in itself": ("a: &a {b: *a, c: *a}", "has more than 200000 values|contains itself"),
    "a huge number": ("a: " + "9" * 5000, "not valid YAML: .*digits"),
    "a date that is none": ("a: 2001-99-99", "not valid YAML: .*month"),
    "not text": (b"\xff\xfe\x00binary", "not valid YAML"),
    "a size": (b"a: 1\n" * MAX_BYTES, "is longer than 1 MiB"),
    "many keys": ("\n".join(f"k{k}: 1" for k in range(20_000)) + "\nk1: 2", "'k1' is given twice"),
    "base 8": ("a: 010", "not valid YAML: '010' is a number of base 8 or 60"),
    "base 60": ("a: [1:30]", "not valid YAML: '1:30' is a number of base 8 or 60"),
    "base 60 with a fraction": ("a: 1:30.5", "not valid YAML: '1:30.5' is a number of base 8 or 60"),
    "an object": ("a: !!python/object/apply:os.system [ls]", "not valid YAML: .*tag"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_is_refused_in_one_line(tmp_path, name):
    content, message = HOSTILE[name]
    path = tmp_path / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as refused:
        read_document(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000
    if len(content) < 10_000 and isinstance(content, str):
        with pytest.raises(UserError):
            parse_overrides([f"loss.sigma={content}"])


def test_aliases_and_merges_are_read():
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": [{"x": 1, "y": 2}] * 2,
    }


@pytest.mark.parametrize("text", ["0", "-0", "0.5", "00.5", "12", "1_000", "0x1F", ".inf", "1.0e-3", "0b11"])
def test_numbers_are_read_as_pyyaml_reads_them(text):
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("path", ["/proc/self/mem", "/dev/zero", "folder"])
def test_what_is_no_document_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"no such file|cannot be read"):
        read_document(path)
