import pytest

from tiekd.config.changes import MAP_IMPORT, PREDICTION, check_changes
from tiekd.errors import UserError


def test_settings_that_are_read_may_change_one_by_one_or_as_a_section():
    changes = {"evaluation": {"flip_tta": False}, "optim.precision": "bf16"}
    assert check_changes(changes, PREDICTION, "predict") == {"evaluation.flip_tta": False, "optim.precision": "bf16"}
    assert check_changes({"data.train_split": "a.txt"}, MAP_IMPORT, "import") == {"data.train_split": "a.txt"}


@pytest.mark.parametrize("path", ["data.max_depth", "bins.n_bins", "student", "teacher.maps", "seed", "evaluation.every"])
def test_other_settings_are_refused_by_name(path):
    with pytest.raises(UserError, match=rf"^{path}: predict only reads evaluation.flip_tta, .*, optim.precision$"):
        check_changes({path: 3}, PREDICTION, "predict")


@pytest.mark.parametrize("path", ["data.maxdepth", "dta.root", "dta"])
def test_unknown_settings_are_left_to_the_config(path):
    assert check_changes({path: 3}, PREDICTION, "predict") == {path: 3}
