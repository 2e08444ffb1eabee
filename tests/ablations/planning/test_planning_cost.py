"""Planning reads shared inputs once and imports neither PyTorch nor Ray."""

import subprocess
import sys

from ablations.planning.cells import expand_cells
from ablations.planning.plan import make_plan
from ablations.prepared_study import prepare_study
from tiekd.data import teacher_maps
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

IN_A_PROCESS = """
import sys
from tiekd.__main__ import main
command = ["tiekd", "ablate", *sys.argv[1:]]
for words in (["--seeds", "3", "--dry-run"], []):
    sys.argv = [*command, *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code
loaded = {"torch", "timm", "ray"} & set(sys.modules)
assert not loaded, loaded
"""


def test_inputs_shared_by_cells_are_read_once(study, tmp_path, monkeypatch):
    read, really = [], teacher_maps._read_manifest
    monkeypatch.setattr(teacher_maps, "_read_manifest", lambda folder: read.append(folder) or really(folder))
    teacher_maps._open.cache_clear()
    cells = expand_cells(study(factors={"optim.lr": [1e-4, 1e-3, 1e-2, 1e-1], "optim.batch_size": [2, 4]}, seeds=[0, 1, 2]))
    plan = make_plan(cells, RunStore(tmp_path / "store"))
    assert (len(plan.cells), len(plan.to_compute), len(read)) == (24, 24, 1)


def test_dry_run_and_finished_study_import_neither_pytorch_nor_ray(study_file, tmp_path):
    path = study_file(seeds=[0, 1])
    prepared = prepare_study(path, str(tmp_path / "store"), [])
    (tmp_path / "store").mkdir()
    for c in prepared.plan.cells:
        record = prepared.store.run(c.run_id)
        record.write_json("summary.json", {"run_id": c.run_id, "metrics": {"abs_rel": 0.1, "rmse": 1.0, "delta1": 0.9}})
        record.write_status(Status("done"))
    command = [sys.executable, "-c", IN_A_PROCESS, str(path), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 cells: 2 done, 1 missing; 1 to compute, estimate " in done.stdout
    assert "2 cells: 2 done; nothing to compute" in done.stdout
