"""`tiekd evaluate` of a run."""

import json
import shutil

import pandas as pd
import pytest

from tiekd.store.run_store import RunStore


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
    assert outcome.out.splitlines()[-2:] == [
        "1 of 2 images have no valid ground truth and are left out of the averages",
        "1 images were evaluated; papers on KITTI evaluate 652 (Eigen split, improved ground truth) or 697 (Eigen split, raw "
        "LiDAR); their numbers are not comparable",
    ]


def test_one_pass_is_scored_by_many_protocols(ran, tiekd, tmp_path):
    folder = ran["store"] / "runs" / ran["si"]["run_id"]
    names = ["none", "none+median", "none@5m+affine_depth"]
    options = [word for name in names for word in ("--protocol", name)]
    outcome = tiekd("evaluate", folder, *options, "--images", tmp_path / "rows.parquet", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["protocols"]
    for each in found:
        alone = json.loads(tiekd("evaluate", folder, "--protocol", each["protocol"], "--json").out)
        assert each == alone
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(rows["protocol"]) == [name for name in names for _ in range(4)]
    means = rows.groupby("protocol", sort=False)["abs_rel"].mean()
    assert list(means) == pytest.approx([each["metrics"]["abs_rel"] for each in found])
    title, *lines = tiekd("evaluate", folder, *options).out.splitlines()
    assert title.split()[:3] == ["protocol", "images", "abs_rel"]
    assert [line.split()[:2] for line in lines] == [[name, "4"] for name in names]
    assert lines[1].split()[2] == f"{means['none+median']:.4f}"


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("nnoe+median", "evaluation.also: unknown 'nnoe'; did you mean none"),
        ("none+medain", "evaluation.also: 'none+medain' needs an alignment: alignment: unknown 'medain'; did you mean median"),
        ("nyu-eigen+median", "protocol nyu-eigen is defined on 480 x 640 frames, got 64 x 96"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(ran, mistake, protocol, message):
    folder = ran["store"] / "runs" / ran["si"]["run_id"]
    assert message in mistake("evaluate", folder, "--protocol", "none", "--protocol", protocol)


def test_structure_is_scored_when_asked_for(ran, tiekd):
    folder = ran["store"] / "runs" / ran["si"]["run_id"]
    words = ("evaluate", folder, "--boundaries", "--focal", "55.7")
    outcome = tiekd(*words, "--set", "data.dataset=synthetic-indoor", "--json")
    assert outcome.code == 0, outcome.err
    metrics = json.loads(outcome.out)["metrics"]
    assert list(metrics)[-2:] == ["boundary_f1", "normal_deg"]
    assert 0 <= metrics["boundary_f1"] < 1
    assert 0 < metrics["normal_deg"] < 90
    sparse = tiekd(*words).out.splitlines()  # the beams of a LiDAR are too far apart for normals
    assert (sparse[1].split()[-1], sparse[2].split()[-1]) == ("normal_deg", "-")


def test_rows_are_kept_with_a_finished_run(ran, tiekd, tmp_path):
    shutil.copytree(ran["store"], tmp_path / "store")
    words = ("evaluate", ran["si"]["run_id"], "--store", tmp_path / "store", "--save", "--json")
    record = RunStore(tmp_path / "store").run(ran["si"]["run_id"])
    means = {}
    for names in (["none", "none+median"], ["none+log_lsq", "none+median"]):
        outcome = tiekd(*words, *(word for name in names for word in ("--protocol", name)))
        assert outcome.code == 0, outcome.err
        means |= {each["protocol"]: each["metrics"]["abs_rel"] for each in json.loads(outcome.out)["protocols"]}
    rows = record.read_table("protocols.parquet")
    assert rows.groupby("protocol")["abs_rel"].mean().to_dict() == pytest.approx({k: v for k, v in means.items() if "+" in k})
    assert record.summary()["also"] == ["none+log_lsq", "none+median"]
    assert record.summary()["metrics"] == ran["si"]["summary"]["metrics"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("RUN", "--save: needs --protocol NAME"),
        ("RUN --protocol none --set execution.device=cpu", "--save: keeps the rows of the run's own settings; leave out --set"),
        ("RUN --focal 0", "--focal: expected a focal length above 0 px, got '0'"),
        ("--predictions maps --protocol none", "--save: keeps the rows with a run; needed the folder of one as WEIGHTS"),
    ],
)
def test_rows_that_cannot_be_kept_are_refused(ran, mistake, words, message):
    folder = ran["store"] / "runs" / ran["si"]["run_id"]
    assert message in mistake("evaluate", "--save", *(folder if word == "RUN" else word for word in words.split()))
