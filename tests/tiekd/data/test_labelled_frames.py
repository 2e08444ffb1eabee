"""Few labels: which frames are trained on their ground truth, and which on a teacher."""

import pytest

from tiekd.config import build
from tiekd.data import check_inputs, open_inputs
from tiekd.data.inputs import labelled_frames, run_id_of, train_frames
from tiekd.data.layouts.split_list import Layout, ListedFrames, ListEntry
from tiekd.errors import UserError

DATA = {"dataset": "synthetic-outdoor", "train_frames": 24, "test_frames": 4, "frame_size": [64, 96], "train_crop": [48, 64]}
GROUND_TRUTH = {"name": "si", "target": "ground_truth"}


def config(loss=GROUND_TRUTH, teacher=None, **data):
    return build({"data": DATA | data, "student": {"name": "tiny"}, "loss": loss, "teacher": teacher})


@pytest.fixture
def on_teacher():
    """The config of a student of a teacher that is trained on all labels."""

    def make(**data):
        return config({"name": "mse"}, {"name": "t", "run": {"data.labelled": None}}, **data)

    return make


@pytest.mark.parametrize(("labelled", "count"), [(5, 5), (0.25, 6), (0.01, 1), (1.0, 24), (24, 24), (None, 24)])
def test_a_count_or_a_share_of_the_frames_is_trained_on(labelled, count):
    assert len(open_inputs(config(labelled=labelled)).train) == count


def test_labels_come_from_few_groups_that_the_seed_chooses():
    def groups(seed: int) -> list[str]:
        train = train_frames(config(labelled=7, label_seed=seed))
        return list(dict.fromkeys(train.group(index) for index in range(len(train))))

    whole = train_frames(config())
    size = sum(whole.group(index) == whole.group(0) for index in range(len(whole)))
    assert len(groups(0)) == -(-7 // size)
    assert groups(3) == groups(3)
    assert len({tuple(groups(seed)) for seed in range(8)}) > 1


def test_chosen_frames_are_those_of_the_source():
    whole, few = train_frames(config()), train_frames(config(labelled=3))
    for index, key in enumerate(few.keys):
        original = list(whole.keys).index(key)
        assert (few.load(index).image == whole.load(original).image).all()
        assert few.group(index) == whole.group(original)
        assert few.size(index) == few.frame_size(index) == (64, 96)
    assert (few.n_without_ground_truth, few.files(0)) == (0, [])


def test_the_choice_identifies_a_run_on_ground_truth_and_not_one_on_a_teacher(on_teacher):
    assert run_id_of(config(labelled=1.0)) == run_id_of(config())
    ids = [run_id_of(config(labelled=5)), run_id_of(config(labelled=5, label_seed=1)), run_id_of(config(labelled=6))]
    assert len({run_id_of(config()), *ids}) == 4
    assert run_id_of(on_teacher(labelled=5)) == run_id_of(on_teacher())
    assert len(train_frames(on_teacher(labelled=5))) == 24
    assert len(train_frames(on_teacher(labelled=5).teacher_run)) == 24


def test_parts_on_both_targets_train_on_all_frames_and_see_few_labels(on_teacher):
    def mixed(**data):
        parts = {"si": {"target": "ground_truth"}, "mse": {"weight": 0.1}}
        return config({"parts": parts}, {"name": "t", "run": {"data.labelled": None}}, **data)

    few, labelled, whole = train_frames(mixed(labelled=5)), train_frames(config(labelled=5)), train_frames(config())
    assert list(few.keys) == list(whole.keys)
    assert few.n_without_ground_truth == 24 - 5
    for index, key in enumerate(few.keys):
        shown = key in list(labelled.keys)
        assert few.has_ground_truth(index) == shown
        assert (few.load(index).image == whole.load(index).image).all()
        assert (few.load(index).depth_gt == (whole.load(index).depth_gt if shown else 0)).all()
    ids = [run_id_of(mixed(**data)) for data in ({}, {"labelled": 5}, {"labelled": 6}, {"labelled": 5, "label_seed": 1})]
    assert len({*ids, run_id_of(on_teacher())}) == 5
    assert run_id_of(mixed(labelled=1.0)) == run_id_of(mixed())
    with pytest.raises(UserError, match=r"data\.labelled: only 24 training frames have ground truth, got 25"):
        check_inputs(mixed(labelled=25))


def test_a_teacher_has_the_labels_of_its_student_unless_it_states_others():
    student = config({"name": "mse"}, {"name": "t", "run": {}}, labelled=5)
    assert len(train_frames(student.teacher_run)) == 5


def test_frames_without_ground_truth_are_trained_on_with_a_teacher_alone(tmp_path):
    rows = [ListEntry(f"a/{i}.png", None if i % 3 == 0 else f"a/{i}_d.png") for i in range(9)]
    source = ListedFrames(tmp_path, "list", rows, Layout("files", "a b 1", 1000.0), "train")
    chosen = labelled_frames(source)
    assert [chosen.keys[index] for index in range(len(chosen))] == [f"a/{i}" for i in (1, 2, 4, 5, 7, 8)]
    assert chosen.n_without_ground_truth == 0
    unlabelled = ListedFrames(tmp_path, "list", [ListEntry("a.png", None)], Layout("files", "a b 1", 1000.0), "train")
    with pytest.raises(UserError, match=r"none of its 1 frames has ground truth; loss.target needs it"):
        labelled_frames(unlabelled)


def test_more_labels_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"data\.labelled: only 24 training frames have ground truth, got 25"):
        check_inputs(config(labelled=25))


@pytest.mark.parametrize("labelled", [0, -1, 0.0, 1.5, "half", True])
def test_a_choice_that_is_neither_a_count_nor_a_share_is_refused(labelled):
    with pytest.raises(UserError, match=r"data\.labelled"):
        config(labelled=labelled)
