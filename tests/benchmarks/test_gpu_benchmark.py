"""`benchmarks/gpu.py` runs without a GPU, at tiny sizes, and writes its page; no time is checked."""

import argparse
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The command, whose parts run in processes of their own."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return importlib.import_module("gpu")


@pytest.fixture
def measure(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Measure parts; returns the page."""

    def page_of(parts: str) -> Path:
        page = tmp_path / "page.md"
        words = ["--device", "cpu", "--tiny", "--parts", parts, "--out", str(page)]
        monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
        gpu.main()
        return page

    return page_of


def test_a_page_is_written(measure):
    text = measure("student").read_text()
    assert "failed" not in text
    assert "| date | 20" in text
    rows = re.findall(r"^\| tiny \| (fp32|bf16) \| (.+?) \| (\S+).* \| (\S+) \|$", text, re.MULTILINE)
    losses = {row[:2]: float(row[3]) for row in rows if row[1] != "ours, Triton"}
    assert losses.keys() == {(precision, variant) for precision in ("fp32", "bf16") for variant in ("plain", "ours")}
    assert [*losses.values()] == [pytest.approx(losses["fp32", "plain"], rel=0.01)] * 4
    assert [row[2] for row in rows if row[1] == "ours, Triton"] == ["UserError:"] * 2
    assert text.count("- Goal: ") == text.count("not judged") == 2


def test_a_mistake_is_told_before_anything_is_written(measure, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        measure("trials,nothing")
    assert "--parts: unknown nothing; valid: tests, head, " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_takes_too_long_or_fails_is_told(gpu, tmp_path):
    options = argparse.Namespace(device="cpu", tiny=True)
    assert "**This part failed: not finished after 0 s.**" in gpu.run_part("head", options, tmp_path / "facts.json", limit=0.1)
    options.device = "no such device"
    failed = gpu.run_part("head", options, tmp_path / "facts.json", limit=300)
    assert "**This part failed: exit code 1.** Its last message: `RuntimeError: " in failed
