"""`ablations.run_study` and packaged studies, as far as no Ray is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.runs import compute

from ablations import StudyResult, run_study
from ablations.prepared_study import prepare_study
from tiekd.errors import UserError

LOSSES = {"loss.name": ["si", "mse"]}


@pytest.fixture
def computed(study, tmp_path) -> Path:
    """The store of a study whose cells have been computed in this process."""
    prepared = prepare_study(study(factors=LOSSES), str(tmp_path / "store"))
    for c in prepared.plan.cells:
        compute(c.cell.config, prepared.store)
    return tmp_path / "store"


def metrics_by_loss(result: StudyResult) -> dict[str, float]:
    return {cell.factors["loss.name"]: cell.metrics["abs_rel"] for cell in result.cells}


def test_finished_study_returns_its_cells_with_metrics(computed, study, capfd):
    result = run_study(study(factors=LOSSES), computed, verbose=False)
    assert (result.name, result.store, result.n_computed, result.complete) == ("demo", str(computed), 0, True)
    assert {cell.state for cell in result.cells} == {"done"}
    assert all(0 < value < 10 for value in metrics_by_loss(result).values())
    assert [cell.config.loss.name for cell in result.cells] == LOSSES["loss.name"]
    assert all((computed / "runs" / cell.run_id).is_dir() for cell in result.cells)
    assert capfd.readouterr() == ("", "")


def test_verbose_prints_the_table_of_tiekd_ablate(computed, study_file, tiekd, capsys):
    path = study_file(factors=LOSSES)
    result = run_study(path, computed, only=["loss.name=mse"])
    assert [cell.factors for cell in result.cells] == [{"loss.name": "mse"}]
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "1 cells: 1 done; nothing to compute"
    assert tiekd("ablate", path, "--store", computed, "--only", "loss.name=mse").out == printed


def test_launch_is_recorded_as_the_command_that_repeats_it(computed, study, study_file):
    path = study_file(factors=LOSSES)
    overrides = {"execution.device": "cpu"}
    prepared = prepare_study(path, str(computed), overrides, "other", 1, ["loss.name=si"])
    options = ["--store", str(computed), "--set", "execution.device=cpu", "--name", "other", "--seeds", "1"]
    assert prepared.commands == [["tiekd", "ablate", str(path), *options, "--only", "loss.name=si"]]
    assert prepare_study(study(factors=LOSSES), str(computed)).commands == []  # no command launches a study in memory


def test_study_that_cannot_run_raises_a_user_error(study, tmp_path, tiny):
    base = tiny | {"teacher": {"name": "x", "maps": str(tmp_path / "nowhere")}}
    with pytest.raises(UserError, match=r"study demo: none of 1 cells can run: teacher maps .*: no such folder"):
        run_study(study(base=base), tmp_path / "store")
    with pytest.raises(UserError, match="--max-failures: must be at least 0, got -1"):
        run_study(study(), tmp_path / "store", max_failures=-1)
    assert list(tmp_path.iterdir()) == []


OUTSIDE = """
import sys
from tiekd.__main__ import main
for words in sys.argv[1:]:
    sys.argv = ["tiekd", *words.split()]
    try:
        main()
    except SystemExit as end:
        print("exit", end.code or 0)
print(sorted({"ray", "torch"} & set(sys.modules)))
"""


def test_packaged_studies_are_found_outside_the_clone(tmp_path):
    commands = ["ablate debug --dry-run", "search dpm --set teacher.maps=nowhere", "ablate debgu"]
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE, *commands],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert "18 cells: 18 missing; 19 to compute, maps of embedded to make" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("exit")] == ["exit 0", "exit 2", "exit 2"]
    search, ablate = done.stderr.splitlines()
    assert search.startswith(f"tiekd: teacher maps {tmp_path}/nowhere: no such folder")
    assert ablate.startswith("tiekd: study: unknown 'debgu'; did you mean debug? valid: backbones, ")
    assert done.stdout.splitlines()[-1] == "[]"
    assert list(tmp_path.iterdir()) == []
