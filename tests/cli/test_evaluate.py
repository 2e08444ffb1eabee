"""`tiekd evaluate` of a run."""

import json

import pytest


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
