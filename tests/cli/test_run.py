"""The `tiekd` command: what it prints, and how it meets its users' mistakes."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import SHARED

from tiekd.config.documents import with_values
from tiekd.data.synthetic import synthesize
from tiekd.store.run_store import RunStore

REAL = SHARED / "data"
SILENT = "127.0.0.1:9"  # the discard port
GROUND_TRUTH = {"name": "si", "target": "ground_truth"}


@pytest.fixture(params=["run", "ablate"])
def words(request, as_yaml, in_folder) -> Callable[[dict], tuple]:
    """The command that computes one document: by itself, or as a study of one cell."""

    def make(document: dict, *options: object) -> tuple:
        content = document if request.param == "run" else {"name": "demo", "base": document}
        return request.param, as_yaml(in_folder / "file.yaml", content), *options

    return make


# -- mistakes in settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("loss.sgima", 0.5, r"loss.sgima: no such setting: unknown 'sgima'; did you mean sigma.* valid: alpha, "),
        ("optm", {"lr": 1}, r"optm: no such setting: unknown 'optm'; did you mean optim\?"),
        ("loss.name", "tie-kd", r"loss.name: unknown 'tie-kd'; did you mean tie_kd\?"),
        ("loss.scale", -1, r"loss.scale: input should be greater than 0, got -1"),
        ("bins.n_bins", 1, r"bins.n_bins: input should be greater than or equal to 2, got 1"),
        ("optim.lr", "fast", r"optim.lr: input should be a valid number.*, got 'fast'"),
        ("student.name", "tinny", r"student.name: unknown 'tinny'; did you mean tiny"),
        ("student.encoder", "resnet_none", r"resnet_none"),
        ("teacher.maps", "nowhere", r"teacher maps \S*nowhere: no such folder"),
        ("data.dataset", "kiti", r"data.dataset: unknown 'kiti'; did you mean kitti"),
        ("data.train_crop", [64, 128], r"data.train_crop \(64, 128\) exceeds data.frame_size \(64, 96\)"),
        ("evaluation.protocol", "nyu-eigen", r"protocol nyu-eigen is defined on 480 x 640 frames, got 64 x 96"),
        ("execution.workers", 64, r"execution.workers: each needs an image of every batch, got 64 for optim.batch_size 4"),
    ],
)
def test_a_setting_that_cannot_be(mistake, words, tiny, path, value, message):
    assert re.search(message, mistake(*words(with_values(tiny, {path: value}))))


def test_several_workers_are_for_studies(mistake, tiny, as_yaml, tmp_path):
    config = as_yaml(tmp_path / "run.yaml", with_values(tiny, {"execution.workers": 2}))
    assert "`tiekd run` is one process, got 2; valid: 1" in mistake("run", config)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_kernel_without_a_gpu(mistake, words, tiny):
    line = mistake(*words(with_values(tiny, {"execution.kernel": "triton"})))
    assert re.search(r"execution.kernel.* 'triton' .*GPU.*; valid \w+: torch", line)


def test_a_machine_without_a_compiler(mistake, tiny, as_yaml, tmp_path):
    from torch._inductor import config as compilers  # seconds to import

    config = as_yaml(tmp_path / "run.yaml", with_values(tiny, {"execution.device": "cpu", "execution.compile": True}))
    with compilers.patch({"cpp.cxx": (None, "no-such-compiler")}):
        line = mistake("run", config)
    assert re.search(r"execution.compile: .*\(.*no-such-compiler.*\); valid here: false, or install a C\+\+ compiler", line)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("loss.sgima=1", r"loss.sgima: no such setting: unknown 'sgima'; did you mean sigma"),
        ("loss.sigma", r"--set 'loss.sigma': expected dotted.path=value, e.g. loss.sigma=0.8"),
        ("loss.sigma=[1", r"--set 'loss.sigma=\[1': the value is not valid YAML"),
        ("data.dataset.name=x", r"data.dataset.name: 'dataset' is a single setting, not a section"),
    ],
)
def test_an_override_that_cannot_be(mistake, words, tiny, option, message):
    assert re.search(message, mistake(*words(tiny, "--set", option)))


def test_a_store_below_a_file(mistake, words, tiny, in_folder):
    (in_folder / "file").touch()
    line = mistake(*words(tiny, "--store", "file/store"))
    assert re.search(r"store \S*file/store: \S*/file is a file; a store is a folder or a URI", line)


def test_a_store_of_an_unknown_kind(mistake, words, tiny):
    assert "store nfs://host/store: not a folder or a URI that pyarrow reads" in mistake(
        *words(tiny, "--store", "nfs://host/store")
    )


@pytest.mark.parametrize("verb", ["run", "ablate", "search"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"absent.yaml: no such file"),
        ("a: [1,\nb: }", r"absent.yaml: not valid YAML: .*line 2"),
        ("a: 1\na: 2", r"absent.yaml: not valid YAML: 'a' is given twice"),
        ("- 1", r"absent.yaml: expected a mapping of settings, got list"),
        ("", r"absent.yaml: expected a mapping of settings, got NoneType"),
    ],
)
def test_a_file_that_is_none(mistake, in_folder, verb, content, message):
    if content is not None:
        (in_folder / "absent.yaml").write_text(content)
    assert re.search(message, mistake(verb, "absent.yaml"))


# -- mistakes in the data -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """Rendered frames as a KITTI folder; not to be written to."""
    root = tmp_path_factory.mktemp("written") / "kitti"
    synthesize(root, "kitti", train_frames=4, test_frames=2)
    return root


@pytest.fixture
def kitti(written, in_folder, tiny) -> dict[str, Any]:
    """A run on a copy of those in the working folder."""
    shutil.copytree(written, in_folder / "kitti")
    return {**tiny, "data": {"dataset": "kitti", "root": "kitti"}, "teacher": None, "loss": GROUND_TRUTH}


def lose_images(root: Path) -> None:
    for path in sorted((root / "input/2000_01_01").rglob("*.png"))[1:]:
        path.unlink()


def cut_a_line(root: Path) -> None:
    path = root / "kitti_eigen_train.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]))


def use_eight_bits(root: Path) -> None:
    path = sorted((root / "gt_depth").rglob("*.png"))[0]
    Image.fromarray(np.ones((375, 1242), np.uint8)).save(path)


def lose_the_list(root: Path) -> None:
    (root / "kitti_eigen_test.txt").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"data.root \S*kitti: no such folder; for kitti it holds .*input/.*gt_depth/"),
        (lose_the_list, r"data.test_split \S*kitti_eigen_test.txt: no such file"),
        (lose_images, r"3 of 4 images are missing in \S*kitti, first input/\S+0001.png, input/\S+0002.png, input/\S+0003.png$"),
        (cut_a_line, r"kitti_eigen_train.txt, line 2: needed 3 columns .*, found 1"),
        (use_eight_bits, r"depth map \S+0000.png: needed a 16-bit grayscale PNG, found 8-bit grayscale"),
    ],
)
def test_data_that_cannot_be_read(mistake, words, kitti, in_folder, spoil, message):
    spoil(in_folder / "kitti")
    assert re.search(message, mistake(*words(kitti)))


def test_a_teacher_map_of_the_wrong_size(mistake, words, tiny, maps, in_folder):
    shutil.copytree(maps, in_folder / "maps")
    path = sorted((in_folder / "maps" / "train").rglob("*.png"))[3]
    Image.fromarray(np.ones((96, 64), np.uint16)).save(path)
    line = mistake(*words(with_values(tiny, {"teacher.maps": "maps"})))
    assert re.search(rf"teacher map of the wrong size: \S*{path.name} is 96x64, expected the frame's 64x96", line)


def test_a_teacher_without_some_maps(mistake, words, tiny, maps, in_folder):
    shutil.copytree(maps, in_folder / "maps")
    sorted((in_folder / "maps" / "train").rglob("*.png"))[3].unlink()
    assert re.search(
        r"teacher maps \S*maps: 1 of 8 frames have no map", mistake(*words(with_values(tiny, {"teacher.maps": "maps"})))
    )


# -- mistakes in studies and searches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"factors": {"m": {"a": {"loss.name": "si"}}, "loss.name": ["si"]}}, [], r"factors m and loss.name contradict"),
        ({}, ["--only", "los=si"], r"--only 'los=si': expected name=value with a name of backbone, dataset, loss"),
        ({}, ["--only", "loss=mse"], r"--only 'loss=mse': no such cell; loss is one of si"),
        ({"seeds": [0, 1]}, ["--set", "seed=3"], r"--set seed: study demo repeats over seeds; use --seeds N"),
        ({}, ["--seeds", 0], r"--seeds: must be at least 1, got 0"),
        ({}, ["--name", "a/b"], r"name: string should match pattern .*got 'a/b'"),
    ],
)
def test_a_study_that_cannot_be(mistake, tiny, as_yaml, in_folder, settings, options, message):
    path = as_yaml(in_folder / "study.yaml", {"name": "demo", "base": tiny} | settings)
    assert re.search(message, mistake("ablate", path, *options))


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        (None, [], r"study \S+: has no search: block; `tiekd ablate` runs its cells"),
        ({"space": "dpm.yaml", "sampler": "tpee"}, [], r"search.sampler: input should be 'tpe', .*, got 'tpee'"),
        ({"space": "dmp.yaml"}, [], r"search space 'dmp.yaml': no such file; of search_spaces/: .*dpm.yaml"),
        ({"space": "mine.yaml"}, [], r"no such setting: unknown 'loss.sgima'; did you mean .*loss.sigma"),
        ({"space": "dpm.yaml"}, [], r"search: tpe goes on for ever without trials or hours; give one of them"),
        ({"space": "dpm.yaml"}, ["--trials", 0], r"--trials: must be at least 1, got 0"),
        ({"space": "dpm.yaml"}, ["--hours", 0], r"--hours: must be above 0, got 0"),
        (
            {"space": "bins.yaml", "sampler": "cmaes", "trials": 9},
            [],
            r"search.sampler: cmaes .*, and bins.spacing is categorical",
        ),
        ({"space": "alpha.yaml", "trials": 9}, [], r"none of loss.alpha is active where the base config has loss.name 'si'"),
        (
            {"space": "dpm.yaml", "trials": 9},
            ["--set", "bins.n_bins=9"],
            r"--set bins.n_bins: the search space dpm.yaml varies",
        ),
        ({"space": "dpm.yaml", "trials": 9}, ["--set", "teacher.maps=nowhere"], r"teacher maps \S*nowhere: no such folder"),
        (
            {"space": "dpm.yaml", "trials": 9},
            ["--storage", "optuna.db"],
            r"--storage: not a database URL; valid: sqlite:///FILE",
        ),
        (
            {"space": "dpm.yaml", "trials": 9},
            ["--storage", f"postgresql://me:not-a-secret@{SILENT}/db"],
            rf"--storage postgresql\+psycopg://me:\*\*\*@{SILENT}/db: the database does not answer",
        ),
        (
            {"space": "dpm.yaml", "trials": 9, "objectives": ["abs_rel", "milliseconds"]},
            ["--set", "execution.workers=2"],
            r"execution.workers: milliseconds and parameters are measured with 1, got 2",
        ),
    ],
)
def test_a_search_that_cannot_be(mistake, tiny, as_yaml, in_folder, search, options, message):
    as_yaml(in_folder / "mine.yaml", {"parameters": {"loss.sgima": {"type": "float", "low": 1, "high": 2}}})
    path = as_yaml(in_folder / "study.yaml", {"name": "demo", "base": tiny, "search": search})
    assert re.search(message, mistake("search", path, *options))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("verb", ["ablate", "search"])
def test_an_address_where_nothing_listens(tiekd, tiny, as_yaml, in_folder, verb):
    path = as_yaml(in_folder / "study.yaml", {"name": "demo", "base": tiny, "search": {"space": "dpm.yaml", "trials": 9}})
    outcome = tiekd(verb, path, "--address", SILENT)
    assert outcome.code == 2
    assert re.fullmatch(rf"tiekd: --address {SILENT}: cannot connect to a Ray cluster there \(.*\)\n", outcome.err)
    assert list(in_folder.iterdir()) == [path]


# -- mistakes in reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("status empty", "store empty: holds no runs"),
        ("status nowhere", "store nowhere: "),
        ("report empty --out out", "store empty: holds no runs and no studies"),
        ("report nowhere --out out", "store nowhere: no such folder"),
        ("diff 0123 4567 --store empty", "'0123' is neither a config file, nor a run's folder, nor a run of store empty"),
        ("evaluate nowhere", "weights nowhere: no such file"),
        ("evaluate empty", "weights empty/student.safetensors: no such file"),
        ("data check nowhere", "nowhere: no such folder"),
        ("data check empty", "empty: found the split lists of no data set"),
        ("data synthesize full", "full: not empty; name a new folder"),
        ("data synthesize new --layout kiti", "layout: unknown 'kiti'; did you mean kitti"),
    ],
)
def test_a_place_that_holds_nothing(mistake, in_folder, command, message):
    (in_folder / "empty").mkdir()
    (in_folder / "full").mkdir()
    (in_folder / "full" / "file").touch()
    assert message in mistake(*command.split())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("abblate study.yaml", "No such command 'abblate'"),
        ("ablate study.yaml --dryrun", "No such option: --dryrun"),
        ("ablate", "Missing argument 'STUDY.yaml'"),
        ("search study.yaml --trials many", "Invalid value for '--trials'"),
        ("data", ""),
    ],
)
def test_a_command_line_that_is_none(tiekd, in_folder, command, message):
    outcome = tiekd(*command.split())
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run file.yaml --set loss.name=ssim_mes", "tiekd: file.yaml: loss.name: unknown 'ssim_mes'; did you mean ssim_mse"),
        ("ablate file.yaml", "tiekd: study file.yaml: name is needed; base is needed; data: no such setting: "),
        ("status nowhere", "tiekd: store nowhere: holds no runs\n"),
    ],
)
def test_a_real_process_says_one_line_and_leaves_nothing(tiny, as_yaml, in_folder, command, message):
    as_yaml(in_folder / "file.yaml", tiny)
    done = subprocess.run(
        [sys.executable, "-m", "tiekd", *command.split()], capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(message)
    assert os.listdir(in_folder) == ["file.yaml"]


# -- what commands print ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiekd, tiny, as_yaml) -> dict[str, Any]:
    """Two runs of one store by `tiekd run --json`: what each printed, by loss; and the store."""
    folder = tmp_path_factory.mktemp("ran")
    config = as_yaml(folder / "config.yaml", tiny)
    found = {"store": folder / "store", "config": config}
    for loss in ("si", "mse"):
        outcome = tiekd("run", config, "--store", folder / "store", "--set", f"loss.name={loss}", "--json")
        assert (outcome.code, outcome.err) == (0, "")
        found[loss] = json.loads(outcome.out)
    return found


def test_a_run_prints_its_summary(ran):
    assert (ran["si"]["state"], ran["si"]["cause"]) == ("done", "")
    assert ran["si"]["run_id"] != ran["mse"]["run_id"]
    stored = RunStore(ran["store"]).run(ran["si"]["run_id"]).read_json("summary.json")
    assert ran["si"]["summary"] == stored
    assert stored["metrics"]["abs_rel"] > 0


def test_a_run_that_is_there_is_shown_and_not_computed(ran, tiekd, tree):
    before = tree(ran["store"])
    outcome = tiekd("run", ran["config"], "--store", ran["store"])
    assert outcome.code == 0
    first, title, head, numbers, place = outcome.out.splitlines()
    assert first == f"run {ran['si']['run_id']}: done"
    assert title.startswith("protocol none, 4 images")
    values = {name: float(value) for name, value in zip(head.split(), numbers.split(), strict=True)}
    assert values == pytest.approx(ran["si"]["summary"]["metrics"], abs=6e-5)
    assert place == f"{ran['store']}/runs/{ran['si']['run_id']}"
    assert tree(ran["store"]) == before


def test_diff_prints_only_what_differs(ran, tiekd):
    a, b = ran["si"]["run_id"], ran["mse"]["run_id"]
    assert tiekd("diff", a, b, "--store", ran["store"]).out == "loss.name: si -> mse\n"
    assert json.loads(tiekd("diff", b, ran["store"] / "runs" / a, "--store", ran["store"], "--json").out) == {
        "loss.name": ["mse", "si"]
    }


def test_diff_tells_settings_that_presets_bring(ran, tiekd, tiny, as_yaml, tmp_path):
    other = as_yaml(tmp_path / "other.yaml", with_values(tiny, {"loss.name": "tie_kd", "bins.n_bins": 8}))
    lines = tiekd("diff", ran["config"], other).out.splitlines()
    assert lines == ["bins.n_bins: 16 -> 8", "loss.name: si -> tie_kd", "student.head: regression -> dpm"]


def test_diff_of_a_run_with_itself_says_so(ran, tiekd):
    folder = ran["store"] / "runs" / ran["si"]["run_id"]
    assert tiekd("diff", folder, folder).out == "no setting differs\n"


def test_status_counts_runs_and_hours(ran, tiekd):
    found = json.loads(tiekd("status", ran["store"], "--json").out)
    seconds = sum(record.status().device_seconds for record in RunStore(ran["store"]).runs())
    assert (found["runs"], found["states"], found["failures"], found["studies"]) == (2, {"done": 2}, [], {})
    assert found["device_hours"] == pytest.approx(seconds / 3600)
    assert seconds > 0
    assert tiekd("status", ran["store"]).out == f"2 runs: 2 done; {seconds / 3600:.2f} device-hours\n"


def test_status_groups_failures_by_cause(tiekd, tmp_path):
    store = RunStore(tmp_path / "store")
    causes = {"a": "RuntimeError: [enforce fail]", "b": "RuntimeError: [enforce fail]", "c": "OSError: [/disk] is full"}
    for run_id, cause in causes.items():
        record = store.run(run_id)
        record.write_json("status.json", {"state": "failed", "cause": cause})
    out = tiekd("status", store.uri).out
    head, *rows = out.splitlines()
    assert head.startswith("3 runs: 3 failed; ")
    assert rows == [
        "2 failed: RuntimeError: [enforce fail]",
        f"  for example a, log {store.uri}/runs/a/error.txt",
        "1 failed: OSError: [/disk] is full",
        f"  for example c, log {store.uri}/runs/c/error.txt",
    ]


def test_evaluate_repeats_the_numbers_of_the_run(ran, tiekd):
    folder = ran["store"] / "runs" / ran["si"]["run_id"]
    found = json.loads(tiekd("evaluate", folder, "--json").out)
    assert (found["protocol"], found["n_images"]) == ("none", 4)
    assert found["metrics"] == pytest.approx(ran["si"]["summary"]["metrics"], rel=1e-4)
    lines = tiekd("evaluate", folder / "student.safetensors").out.splitlines()
    assert lines[0].startswith("protocol none, 4 images")
    assert float(lines[2].split()[0]) == pytest.approx(found["metrics"]["abs_rel"], abs=1e-3)


def test_evaluate_takes_another_data_set_and_protocol(ran, tiekd, written):
    folder = ran["store"] / "runs" / ran["si"]["run_id"]
    options = ["--set", "data.dataset=kitti", "--set", "data.frame_size=null", "--set", "data.test_split=kitti_eigen_test.txt"]
    outcome = tiekd("evaluate", folder, "--data", written, *options, "--protocol", "bts-garg")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("protocol bts-garg, 1 images")
    assert outcome.out.splitlines()[-1] == "1 of 2 images have no valid ground truth and are left out of the averages"


def test_data_check_describes_a_healthy_folder(tiekd, written):
    outcome = tiekd("data", "check", written)
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == f"kitti in {written}"
    assert "train: 4 frames in 1 drives or scenes, 0 without ground truth" in lines
    assert "test: 2 frames in 1 drives or scenes, 1 without ground truth" in lines
    assert lines[-1] == "no problems"


def test_data_check_lists_problems_and_ends_in_code_2(tiekd, kitti, in_folder):
    lose_images(in_folder / "kitti")
    cut_a_line(in_folder / "kitti")
    outcome = tiekd("data", "check", "kitti", "--json")
    assert (outcome.code, outcome.err) == (2, "")
    found = json.loads(outcome.out)
    train, test = found["splits"]
    assert found["ok"] is False
    assert "line 2: needed 3 columns" in train["problems"][0]
    assert train["missing"]["images"] == 2  # the third is of the line that was cut
    assert test["problems"] == []


def test_data_pack_is_written_checked_and_read(tiekd, tiny, as_yaml, in_folder):
    config = as_yaml(in_folder / "run.yaml", {**tiny, "optim": {"epochs": 1, "batch_size": 4}})
    outcome = tiekd("data", "pack", config, "--out", "packed")
    assert outcome.code == 0, outcome.err
    assert re.fullmatch(
        r"(frames-\w{16}: [48] items, 0\.\d MB\n){2}maps-\w{16}: 12 items, 0\.\d MB\n"
        r"use it with --set execution.packed=packed\n",
        outcome.out,
    )
    assert tiekd("data", "pack", config, "--out", "packed").out.count("already packed") == 3
    refused = tiekd("data", "pack", config, "--out", "nowhere", "--check")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert refused.err.startswith("tiekd: packed data nowhere: no such folder; `tiekd data pack CONFIG.yaml --out nowhere`")
    checked = json.loads(tiekd("data", "pack", config, "--out", "packed", "--check", "--json").out)
    assert sorted(part["items"] for part in checked["parts"].values()) == [4, 8, 12]
    results = [
        json.loads(tiekd("run", config, "--store", store, "--json", *options).out)
        for store, options in (("files", []), ("from-pack", ["--set", "execution.packed=packed"]))
    ]
    assert results[0]["state"] == "done"
    assert results[0]["run_id"] == results[1]["run_id"]
    assert results[0]["summary"]["metrics"] == results[1]["summary"]["metrics"]


def test_data_check_tells_the_layout_of_real_frames(tiekd):
    if not REAL.is_dir():
        pytest.skip(f"the real frames are not beside this checkout ({REAL})")
    found = json.loads(tiekd("data", "check", REAL / "nyu", "--json").out)
    assert (found["dataset"], found["ok"]) == ("nyu", True)
    assert found["splits"][0]["sizes"] == {"480x640": found["splits"][0]["rows"]}


def test_a_run_on_real_frames(tiekd, tiny, as_yaml, tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"the real frames are not beside this checkout ({REAL})")
    document = {**tiny, "data": {"dataset": "kitti", "root": str(REAL / "kitti")}, "teacher": None, "loss": GROUND_TRUTH}
    document["optim"] = {"epochs": 1, "batch_size": 1}
    outcome = tiekd("run", as_yaml(tmp_path / "run.yaml", document), "--store", tmp_path / "store", "--json")
    assert outcome.code == 0, outcome.out
    summary = json.loads(outcome.out)["summary"]
    assert (summary["protocol"], summary["n_images"]) == ("adabins-kb-garg", 1)
    assert np.isfinite(summary["metrics"]["abs_rel"])
