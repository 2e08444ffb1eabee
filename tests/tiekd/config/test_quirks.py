import re

import pytest
from support.paths import ROOT

from tiekd.config import LossConfig, build, override
from tiekd.config.quirks import QUIRKS
from tiekd.config.specs import LOSSES

every_quirk = pytest.mark.parametrize("name", QUIRKS)
BASELINE = {"loss.name": "si", "loss.target": "ground_truth"}


def run(overrides=None):
    """TIE-KD on KITTI as published."""
    document = {"data": {"dataset": "kitti"}, "teacher": {"name": "adabins", "maps": "maps"}}
    return override(build(document), overrides or {})


@every_quirk
def test_a_quirk_says_what_was_done_what_is_done_and_where_it_was_found(name):
    quirk = QUIRKS[name]
    assert quirk.released != quirk.corrected
    assert re.search(r"\.py\b", quirk.source)


@every_quirk
def test_a_quirk_is_about_losses_and_settings_that_exist(name):
    quirk = QUIRKS[name]
    assert set(quirk.losses or ()) <= LOSSES.keys()
    assert set(quirk.overrules) <= LossConfig.model_fields.keys()
    readers = quirk.losses or LOSSES
    assert all(any(setting in LOSSES[loss].reads for loss in readers) for setting in quirk.overrules)


def test_a_corrected_run_has_no_quirk_and_a_released_one_those_that_act():
    assert run().quirks == frozenset()
    assert run({"fidelity": "released"}).quirks == {
        "fixed_sigma",
        "unmasked",
        "rows_from_110",
        "kl_epsilon",
        "uniform_outside",
        "ssim_unit_range",
        "ssim_absolute",
        "ssim_padded",
        "teacher_not_rotated",
        "gamma_on_255",
    }
    assert run({"fidelity": "released", **BASELINE}).quirks == {
        "baseline_on_teacher",
        "unmasked",
        "teacher_not_rotated",
        "gamma_on_255",
    }


@pytest.mark.parametrize(
    ("name", "acts", "rests"),
    [
        ("fixed_sigma", {}, {"loss.name": "l_dpm"}),
        ("ignored_weights", {"loss.name": "ssim_mse"}, {"loss.name": "si"}),
        ("rows_from_110", {}, {"data.train_crop": [352, 640]}),
        ("rows_from_110", {"loss.name": "l_dpm"}, {"loss.name": "ssim"}),
        ("kl_epsilon", {}, {"loss.name": "l_depth"}),
        ("uniform_outside", {}, {"loss.name": "mse"}),
        ("ssim_unit_range", {"loss.name": "ssim"}, {"loss.name": "l_dpm"}),
        ("ssim_absolute", {"loss.name": "ssim_si"}, {"loss.name": "si"}),
        ("ssim_padded", {"loss.name": "l_depth"}, {"loss.name": "mse"}),
        ("alpha_unbounded", {"loss.alpha": 1.5}, {"loss.alpha": 1.0}),
        ("baseline_on_teacher", BASELINE, {"loss.name": "si"}),
        ("baseline_on_teacher", BASELINE, {"student.name": "bts"}),
        ("teacher_not_rotated", {}, {"augment.rotate_p": 0.0}),
        ("teacher_not_rotated", {}, {"augment.rotate_degrees": 0.0}),
        ("teacher_not_rotated", {}, BASELINE),
        ("gamma_on_255", BASELINE, {"augment.colour_p": 0.0}),
        ("gamma_on_255", {}, {"augment.gamma": [1.0, 1.0]}),
    ],
)
def test_a_quirk_acts_where_the_run_has_what_it_is_about(name, acts, rests):
    assert run({"fidelity": [name], **acts}).quirks == {name}
    assert run({"fidelity": [name], **rests}).quirks == frozenset()


def test_a_rotation_of_a_baseline_that_reads_the_teacher_leaves_its_map_too():
    assert run({"fidelity": ["baseline_on_teacher", "teacher_not_rotated"], **BASELINE}).quirks == {
        "baseline_on_teacher",
        "teacher_not_rotated",
    }


# -- docs/fidelity.md ----------------------------------------------------------------------------------------------------------


def test_the_page_tells_of_every_quirk_what_the_code_does_and_its_effect():
    page = (ROOT / "docs" / "fidelity.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")]
    rows = rows[: len(QUIRKS)]  # another table follows
    table = {name.strip("`"): cells for name, *cells in rows}
    assert table.keys() == QUIRKS.keys()
    for name, (released, corrected, loss, training) in table.items():
        assert released == f"{QUIRKS[name].released} ({QUIRKS[name].source})"
        assert corrected == QUIRKS[name].corrected
        assert loss
        assert re.fullmatch(r"[+-]0\.\d{4} \([+-]0\.\d{4} \.\. [+-]0\.\d{4}\)", training)
