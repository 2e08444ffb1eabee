"""Mistakes of the user: one line, exit code 2, and nothing written."""

import os
import re
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.spoiled_kitti import cut_a_line, lose_images, lose_the_list, use_eight_bits

from tiekd.config.documents import with_values

SILENT = "127.0.0.1:9"  # the discard port


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
        ("data.frame_size", None, r"data.frame_size: needed for data set 'synthetic-outdoor', such as"),
        ("evaluation.protocol", "nyu-eigen", r"protocol nyu-eigen is defined on 480 x 640 frames, got 64 x 96"),
        (
            "execution.workers",
            64,
            r"execution.workers: each worker needs an image of every batch, got 64 for ",
        ),
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
    assert re.search(r"execution.kernel.* 'triton' .*GPU.*; valid.*: torch", line)


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
    assert "store nfs://host/store: not a folder or the URI of an object store" in mistake(
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


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"data.root \S*kitti: no such folder; for kitti it holds .*input/.*gt_depth/"),
        (lose_the_list, r"data.test_split \S*kitti_eigen_test.txt: no such file"),
        (
            lose_images,
            r"3 of 4 images are missing in \S*kitti, first input/\S+0001.png, \S+0002.png, \S+0003.png; looked in input, ",
        ),
        (cut_a_line, r"kitti_eigen_train.txt, line 2: needed 3 columns .*, found 1"),
        (use_eight_bits, r"depth map \S+0000.png: needed 16-bit or 32-bit integers, .*; found 8-bit integers"),
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


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"factors": {"m": {"a": {"loss.name": "si"}}, "loss.name": ["si"]}}, [], r"factors m and loss.name contradict"),
        ({}, ["--only", "los=si"], r"--only 'los=si': expected name=value, where name is one of backbone, dataset, loss"),
        ({}, ["--only", "loss=mse"], r"--only 'loss=mse': no such cell; loss is one of si"),
        ({"seeds": [0, 1]}, ["--set", "seed=3"], r"--set seed: study demo has its own seeds; use --seeds N"),
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
        (None, [], r"study \S+: has no search: block; compute its cells with `tiekd ablate`"),
        ({"space": "dpm.yaml", "sampler": "tpee"}, [], r"search.sampler: unknown 'tpee'; did you mean tpe"),
        ({"space": "dmp.yaml"}, [], r"search space 'dmp.yaml': no such file; packaged spaces: .*dpm.yaml"),
        ({"space": "mine.yaml"}, [], r"no such setting: unknown 'loss.sgima'; did you mean .*loss.sigma"),
        ({"space": "dpm.yaml"}, [], r"search: tpe needs a budget: give trials or hours"),
        ({"space": "dpm.yaml"}, ["--trials", 0], r"--trials: must be at least 1, got 0"),
        ({"space": "dpm.yaml"}, ["--hours", 0], r"--hours: must be above 0, got 0"),
        (
            {"space": "bins.yaml", "sampler": "cmaes", "trials": 9},
            [],
            r"search.sampler: cmaes .*, but bins.spacing is categorical",
        ),
        ({"space": "alpha.yaml", "trials": 9}, [], r"none of loss.alpha is active if the base config has loss.name 'si'"),
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
            {"space": "loss.yaml", "trials": 9},
            ["--storage", f"postgresql://me:not-a-secret@{SILENT}/db"],
            rf"--storage postgresql\+psycopg://me:\*\*\*@{SILENT}/db: the database does not answer",
        ),
        (
            {"space": "dpm.yaml", "trials": 9, "objectives": ["abs_rel", "milliseconds"]},
            ["--set", "execution.workers=2"],
            r"execution.workers: milliseconds and parameters can be measured only with 1, got 2",
        ),
        (
            {"space": "dpm.yaml", "trials": 9, "constraints": ["parameters <= 5e6"]},
            ["--set", "execution.workers=2"],
            r"execution.workers: milliseconds and parameters can be measured only with 1, got 2",
        ),
        (
            {"space": "dpm.yaml", "trials": 9, "constraints": ["millisecond <= 20"]},
            [],
            r"search.constraints: unknown 'millisecond'; did you mean milliseconds\? valid: abs_rel, ",
        ),
        (
            {"space": "dpm.yaml", "trials": 9, "sampler": "gp"},
            [],
            r"search.sampler: gp draws its first 10 trials at random and needs more, got 9 trials",
        ),
        (
            {"space": "limits.yaml", "trials": 9},
            [],
            r"search space: optim.lr: low: input should be greater than 0, got 0.0",
        ),
    ],
)
def test_a_search_that_cannot_be(mistake, tiny, as_yaml, in_folder, search, options, message):
    as_yaml(in_folder / "mine.yaml", {"parameters": {"loss.sgima": {"type": "float", "low": 1, "high": 2}}})
    as_yaml(in_folder / "limits.yaml", {"parameters": {"optim.lr": {"type": "float", "low": 0, "high": 2}}})
    path = as_yaml(in_folder / "study.yaml", {"name": "demo", "base": tiny, "search": search})
    assert re.search(message, mistake("search", path, *options))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("verb", ["ablate", "search"])
def test_an_address_where_nothing_listens(tiekd, tiny, as_yaml, in_folder, verb):
    path = as_yaml(in_folder / "study.yaml", {"name": "demo", "base": tiny, "search": {"space": "loss.yaml", "trials": 9}})
    outcome = tiekd(verb, path, "--address", SILENT)
    assert outcome.code == 2
    assert re.fullmatch(rf"tiekd: --address {SILENT}: cannot connect to a Ray cluster there \(.*\)\n", outcome.err)
    assert list(in_folder.iterdir()) == [path]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("status empty", "store empty: holds no runs"),
        ("status nowhere", "store nowhere: "),
        ("report empty --out out", "store empty: holds no runs and no studies"),
        ("report nowhere --out out", "store nowhere: no such folder"),
        ("diff 0123 4567 --store empty", "'0123': expected a config file, a run's folder, or the id of a run in store empty"),
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
        ("ablate", "Missing argument 'STUDY'"),
        ("search study.yaml --trials many", "Invalid value for '--trials'"),
        ("data", ""),
    ],
)
def test_a_command_line_that_is_none(tiekd, in_folder, command, message):
    outcome = tiekd(*command.split())
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_a_flag_that_is_given_twice_is_refused(tiekd):
    assert tiekd("status", "store", "--json", "--json").err == "tiekd: --json: expected once, given 2 times\n"


@pytest.mark.parametrize(("verb", "other"), [("ablate", "Demo"), ("search", "demo-Search")])
def test_a_study_whose_name_differs_in_capitals_from_another_is_refused(mistake, tiny, as_yaml, in_folder, verb, other):
    """Some file systems keep both in one folder."""
    study = as_yaml(in_folder / "study.yaml", {"name": "demo", "base": tiny, "search": {"space": "dpm.yaml", "trials": 1}})
    (in_folder / f"store/studies/{other}").mkdir(parents=True)
    message = f"has a study {other}, whose folder is the same on some systems"
    assert message in mistake(verb, study, "--store", "store")


def test_a_disk_without_room_is_one_line(tiekd, in_folder):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        outcome = tiekd("data", "synthesize", "out", "--train-frames", 1, "--test-frames", 1, "--layout", "nyu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome
    assert outcome.err.endswith("File too large\n")
    assert os.listdir() == []


@pytest.mark.parametrize("words", [("status",), ("report", "--out", "out"), ("view", "--out", "out")])
def test_a_store_whose_name_is_not_utf8_is_refused(mistake, in_folder, words):
    assert mistake(words[0], "st\udce9re", *words[1:]) == "tiekd: store 'st\\udce9re': expected a name in UTF-8"


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
