"""`benchmarks/gpu.py` runs without a GPU, at tiny sizes, and writes its page; no time is checked."""

import os
import re
import subprocess
import sys

import pytest
from support.paths import ROOT


def command(*words: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, ROOT / "benchmarks/gpu.py", "--device", "cpu", *words]
    return subprocess.run(arguments, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_a_page_is_written(tmp_path):
    page = tmp_path / "page.md"
    done = command("--tiny", "--parts", "student", "--out", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "failed" not in text
    assert "| date | 20" in text
    rows = re.findall(r"^\| tiny \| (fp32|bf16) \| (.+?) \| (\S+).* \| (\S+) \|$", text, re.MULTILINE)
    losses = {row[:2]: float(row[3]) for row in rows if row[1] != "ours, Triton"}
    assert losses.keys() == {(precision, variant) for precision in ("fp32", "bf16") for variant in ("plain", "ours")}
    assert [*losses.values()] == [pytest.approx(losses["fp32", "plain"], rel=0.01)] * 4
    assert [row[2] for row in rows if row[1] == "ours, Triton"] == ["UserError:"] * 2
    assert text.count("- Goal: ") == 2
    assert text.count("not judged") == 2


def test_a_part_that_fails_is_told_and_the_page_is_written(tmp_path):
    page = tmp_path / "page.md"
    done = command("--tiny", "--parts", "trials,nothing", "--out", str(page))
    assert (done.returncode, page.exists()) == (2, False)
    assert "--parts: unknown nothing; valid: tests, head, " in done.stderr
