"""The recipes of docs/how-to/own-*.md, followed to the letter in a copy of the packages; every verb then works."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

pytestmark = pytest.mark.slow

MODULE = re.compile(r"^`(\w[\w/]+\.py)`:\n\n```python\n(.*?)```", re.DOTALL | re.MULTILINE)
ENTRY = re.compile(r"^In `\w+` of \[`([\w/]+\.py)`\]\(.*?\):\n\n```python\n(.*?)```", re.DOTALL | re.MULTILINE)
DRIVER = """
import contextlib, glob, io, json, sys
from tiekd.__main__ import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["tiekd", *(path for word in words.split() for path in glob.glob(word) or [word])]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            main()
    except SystemExit as end:
        assert not end.code, (words, end.code, said.getvalue())
"""
SMALL = "--set optim.epochs=1 --set optim.batch_size=2"


def follow(page: str, folder: Path) -> None:
    """Write the modules and insert the entries that a page shows."""
    text = (ROOT / "docs/how-to" / page).read_text()
    entries = ENTRY.findall(text)
    assert entries
    for name, code in MODULE.findall(text):
        assert not (folder / name).exists()
        (folder / name).write_text(code)
    for name, code in entries:
        content = (folder / name).read_text()
        assert content.endswith("\n}\n")
        (folder / name).write_text(content.removesuffix("}\n") + code + "}\n")


def write_frames(folder: Path) -> None:
    """Six frames with 16-bit depth and two split lists, as the page on data sets describes them."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        rows = [(f"{split}{n}.png", f"{split}{n}_depth.png") for n in range(count)]
        for image, depth in rows:
            Image.fromarray(draw.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(folder / image)
            Image.fromarray(draw.integers(500, 9000, (96, 128)).astype(np.uint16)).save(folder / depth)
        (folder / f"{split}.txt").write_text("".join(f"{image} {depth} 500\n" for image, depth in rows))


def test_readme_states_the_number_of_lines() -> None:
    readme = (ROOT / "README.md").read_text()
    for page, sentence in {
        "own-loss.md": "one module of {} lines, one entry of {}",
        "own-data-set.md": "one module of {} lines, one entry of {}",
        "own-student.md": "one entry of {} lines",
    }.items():
        text = (ROOT / "docs/how-to" / page).read_text()
        counts = [code.count("\n") for _, code in MODULE.findall(text) + ENTRY.findall(text)]
        assert f"{sentence.format(*counts)} | [" in readme, page
        assert page in readme


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages with a loss, a data set and a student added as the documentation says, and frames of that data set."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("tiekd", "search_spaces", "ablations", "reports"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for page in ("own-loss.md", "own-data-set.md", "own-student.md"):
        follow(page, folder)
    write_frames(folder / "data/desk")
    return folder


def run(copy: Path, *commands: str) -> None:
    """Run `tiekd` commands one after the other in one process of the copy."""
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", DRIVER, json.dumps(commands)]
    done = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_every_verb_works_with_what_was_added(copy: Path) -> None:
    config = "ablations/runs/teacher.yaml --set data.dataset=desk --set data.root=data/desk --set student.name=mobilenetv3"
    stored = "store/runs/*"
    run(
        copy,
        "data check data/desk",
        f"run {config} --set loss.name=l1 {SMALL} --store store",
        f"evaluate {stored}",
        f"teacher export {config} --set loss.name=l1 {SMALL} --store store --out maps",
        f"predict {stored} data/desk/test0.png --out predicted",
        f"export {stored} --out student.onnx",
        f"export {stored} --format hub --out hub",
        "measure store",
        "view store --out viewer",
        "report store --out report",
    )
    card = (copy / "hub/README.md").read_text()
    assert "license: cc-by-4.0" in card
    table = (copy / "report/tables.md").read_text()
    assert "MobileNetV3" in table
    assert "L1" in table
    assert "desk" in table


def test_the_contract_tests_cover_a_loss_that_was_added(copy: Path) -> None:
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", copy)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/tiekd/losses/test_contract.py", "-k", "l1"]
    done = subprocess.run(
        words, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
