"""A report's folder has all files of the newest report, and files that others put there."""

import json
from pathlib import Path

import pytest

from reports.pages.output_folder import MANIFEST, staged_output
from tiekd.errors import UserError


def fill(out: Path, kind: str, *names: str) -> list[Path]:
    files: list[Path] = []
    with staged_output(out, kind, files) as folder:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(kind)
    return files


def names_in(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - {MANIFEST}


def test_stale_files_are_deleted_and_other_files_kept(tmp_path):
    out = tmp_path / "out"
    assert fill(out, "report", "a.md", "figures/old.png") == [out / "a.md", out / "figures" / "old.png"]
    fill(out, "published", "p.md")
    (out / "figures" / "mine.png").write_text("kept")
    fill(out, "report", "a.md", "figures/new.png")
    assert names_in(out) == {"a.md", "figures/new.png", "figures/mine.png", "p.md"}


def test_a_failure_leaves_the_folder_unchanged(tmp_path):
    out = tmp_path / "out"
    fill(out, "report", "a.md")
    with pytest.raises(FileNotFoundError):
        fill(out, "report", "b.md", "c/d/e.md")
    assert {path.name for path in out.iterdir()} == {"a.md", MANIFEST}


def test_a_failure_leaves_no_new_folder(tmp_path):
    with pytest.raises(RuntimeError), staged_output(tmp_path / "new" / "out", "report", []):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_with_outside_paths_deletes_nothing_outside(tmp_path):
    (tmp_path / "precious").write_text("kept")
    out = tmp_path / "out"
    fill(out, "report", "a.md")
    (out / MANIFEST).write_text(json.dumps({"report": ["../precious", str(tmp_path / "precious"), "a.md"]}))
    fill(out, "report", "b.md")
    assert (tmp_path / "precious").read_text() == "kept"
    assert names_in(out) == {"b.md"}


@pytest.mark.parametrize("content", ["", "[1", "[]", '{"report": 3}'])
def test_an_unreadable_manifest_deletes_nothing(tmp_path, content):
    out = tmp_path / "out"
    fill(out, "report", "a.md")
    (out / MANIFEST).write_text(content)
    fill(out, "report", "b.md")
    assert names_in(out) == {"a.md", "b.md"}


def test_an_unusable_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="cannot be written"), staged_output(tmp_path / "file" / "below", "report", []):
        pass
