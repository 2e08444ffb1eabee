import pytest

from tiekd.config.setting_types import plain_setting
from tiekd.errors import UserError


@pytest.mark.parametrize(
    ("path", "given", "plain"),
    [
        ("optim.lr", "1e-3", 0.001),
        ("optim.betas", (0.9, "99e-2"), [0.9, 0.99]),
        ("student.pretrained", True, True),
        ("execution.cpus_per_worker", "auto", "auto"),
        ("data.folder.depth_scale", "1e3", 1000.0),
        ("teacher.run.optim.lr", "1e-3", 0.001),
        ("teacher.run", {"optim.lr": "1e-3"}, {"optim.lr": "1e-3"}),
        ("no.such.setting", "1e-3", "1e-3"),
    ],
)
def test_value_is_that_of_a_document(path, given, plain):
    assert plain_setting(path, given) == plain


@pytest.mark.parametrize(
    ("path", "given", "message"),
    [
        ("optim.lr", 0, "input should be greater than 0, got 0"),
        ("teacher.run.optim.lr", -1, "input should be greater than 0, got -1"),
        ("optim.lr", True, "input should be a number, not true or false, got True"),
        ("student.decoder_channels", [8, 2], "decoder_channels.1: input should be greater than or equal to 4, got 2"),
        ("loss.name", "tie_kdd", "loss.name: unknown 'tie_kdd'; did you mean tie_kd"),
        ("student.output_stride", 24, "input should be 8, 16 or 32, got 24"),
    ],
)
def test_value_that_a_setting_does_not_take_is_refused(path, given, message):
    with pytest.raises(UserError, match=f"^{message}"):
        plain_setting(path, given)
