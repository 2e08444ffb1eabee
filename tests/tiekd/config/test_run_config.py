import copy
import json
from pathlib import Path

import pytest
import yaml

from tiekd.config import RunConfig, build, diff, load_config, override
from tiekd.config.documents import flatten, parse_overrides
from tiekd.config.quirks import QUIRKS
from tiekd.data import check_inputs, input_digests
from tiekd.errors import UserError

INDOOR = {
    "data": {"dataset": "synthetic-indoor"},
    "teacher": {"name": "adabins", "maps": "maps"},
    "student": {"name": "tiny"},
}
GROUND_TRUTH = {"loss.name": "si", "loss.target": "ground_truth"}


def config(overrides=None) -> RunConfig:
    return override(build(INDOOR), overrides or {})


def refusal(overrides: dict) -> str:
    """The one line that refuses an override."""
    with pytest.raises(UserError) as caught:
        config(overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "near"),
    [
        ("loss.sigme", "sigma"),
        ("bins.nbins", "n_bins"),
        ("sead", "seed"),
        ("teacher.map", "maps"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_one(setting, near):
    name = setting.split(".")[-1]
    assert f"{setting}: no such setting: unknown '{name}'; did you mean {near}" in refusal({setting: 1})


@pytest.mark.parametrize(
    ("setting", "received", "near"),
    [
        ("data.dataset", "synthetic-indor", "synthetic-indoor"),
        ("student.name", "resnet19", "resnet18"),
        ("loss.name", "tiekd", "tie_kd"),
        ("evaluation.protocol", "bts_garg", "bts-garg"),
        ("evaluation.also", ["bts_garg"], "bts-garg"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_and_all_valid_ones(setting, received, near):
    message = refusal({setting: received})
    name = received[0] if isinstance(received, list) else received
    assert f"{setting}: unknown '{name}'; did you mean {near}" in message
    assert "valid: " in message


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("bins.n_bins", 1),
        ("bins.n_bins", 2.5),
        ("loss.alpha", 1.01),
        ("loss.sigma", 0),
        ("loss.sigma", 1e-30),  # its square is no number of float32
        ("loss.sigma", float("nan")),
        ("loss.sigma", float("inf")),
        ("loss.sigma", "wide"),
        ("loss.temperature", 1e-4),
        ("optim.epochs", 0),
        ("optim.lr", -1e-3),
        ("optim.betas", [0.9, 1.0]),
        ("optim.precision", "fp16"),
        ("data.train_crop", [8, 64]),
        ("data.train_crop", 64),
        ("augment.flip_p", 1.5),
        ("student.levels", [1]),
        ("student.output_stride", 4),
        ("evaluation.every", 0),
        ("evaluation.flip_tta", "perhaps"),
        ("seed", -1),
        ("execution.workers", 0),
        ("loss.alpha", None),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_path_and_what_came(setting, value):
    message = refusal({setting: value})
    assert setting in message
    assert "got " in message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none+medain", "'none+medain' needs an alignment: alignment: unknown 'medain'; did you mean median"),
        ("none+", "'none+' needs an alignment: alignment: unknown ''; valid: "),
        ("bts-garg@81m", "'bts-garg@81m' needs a cap of at most 80 m such as bts-garg@5m, got '81m'"),
        ("bts-garg@50", "'bts-garg@50' needs a cap of at most 80 m such as bts-garg@5m, got '50'"),
        ("none@0m", "'none@0m' needs a cap such as none@5m, got '0m'"),
        ("none+median@50m", "'none+median@50m' needs an alignment: alignment: unknown 'median@50m'; did you mean median"),
        ("", "unknown ''"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused_with_what_could(name, reason):
    assert f"evaluation.protocol: {reason}" in refusal({"evaluation.protocol": name})


def test_a_protocol_takes_a_cap_and_an_alignment():
    evaluation = {"evaluation.protocol": "bts-garg@50.5m+median", "evaluation.also": ["none+log_lsq", "none"]}
    specs = config(evaluation).evaluation.specs
    assert list(specs) == ["bts-garg@50.5m+median", "none+log_lsq", "none"]
    assert [(spec.max_depth, spec.alignment) for spec in specs.values()] == [
        (50.5, "median"),
        (None, "log_lsq"),
        (None, "none"),
    ]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"student.head": "regression"}, "loss.name: 'tie_kd' needs student.head 'dpm', got 'regression'"),
        ({"loss.name": "l_dpm", "student.head": "regression"}, "loss.name: 'l_dpm' needs student.head 'dpm'"),
        ({"loss.name": "ssim", "loss.target": "ground_truth"}, "loss 'ssim' needs a dense target"),
        ({"loss.target": "ground_truth"}, "loss 'tie_kd' needs a dense target"),
        ({"teacher": None}, "teacher: loss.target 'teacher' needs a section"),
        (
            {"data.dataset": "kitti", "data.frame_size": [352, 1216]},
            "data.frame_size: only rendered data and folders have a free frame size",
        ),
        ({"data.train_crop": [96, 160]}, "data.train_crop (96, 160) exceeds data.frame_size (96, 128)"),
        ({"data.min_depth": 10.0}, "data.min_depth must be below data.max_depth, got 10.0 and 10.0"),
        ({"student.name": "timm"}, "student.encoder: student.name 'timm' needs the name of a timm model"),
        ({"student.levels": [2, 3, 4]}, "student.decoder_channels: expected one width per level, got 4 for 3 levels"),
        (
            {**GROUND_TRUTH, "student.name": "bts", "student.decoder": "fastdepth"},
            "student.decoder: bts has its own decoder, got 'fastdepth'",
        ),
        ({"augment.gamma": [1.1, 0.9]}, "augment.gamma: expected a range from low to high, got (1.1, 0.9)"),
        ({"fidelity": "faithful"}, "fidelity: expected corrected, released or a list of quirks, got 'faithful'"),
        ({"fidelity": "kl_epsilon"}, "fidelity: expected corrected, released or a list of quirks, got 'kl_epsilon'"),
        ({"fidelity": [["unmasked"]]}, "fidelity: unknown ['unmasked']; "),
        ({"fidelity": ["unmasked", "kl_epsilom"]}, "fidelity: unknown 'kl_epsilom'; did you mean kl_epsilon"),
        ({"loss.alpha": 1.5}, "loss.alpha: at most 1 without the quirk alpha_unbounded, got 1.5"),
        ({"loss.alpha": 1.5, "fidelity": ["unmasked"]}, "loss.alpha: at most 1 without the quirk alpha_unbounded, got 1.5"),
        (
            {**GROUND_TRUTH, "teacher": None, "fidelity": ["baseline_on_teacher"]},
            "teacher: the quirk baseline_on_teacher needs a section with name and maps",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides, reason):
    assert reason in refusal(overrides)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "data is needed"),
        ({"data": {}}, "data.dataset is needed"),
        ({"data": "kitti"}, "data: a section is a mapping of settings, got 'kitti'"),
        (INDOOR | {"loss": 3}, "loss: a section is a mapping of settings, got 3"),
        (INDOOR | {"bins": None}, "bins: "),
        ([1], "a run config is a mapping of sections, got list"),
    ],
)
def test_a_document_of_another_shape_is_refused(document, reason):
    with pytest.raises(UserError) as caught:
        build(document, source="run.yaml")
    assert str(caught.value).startswith(f"run.yaml: {reason}")


def test_all_mistakes_are_told_at_once():
    message = refusal({"loss.sigma": -1, "optim.epochs": 0})
    assert "loss.sigma" in message
    assert "optim.epochs" in message


# -- presets --------------------------------------------------------------------------------------------------------------


def test_another_data_set_brings_its_own_presets():
    kitti = config({"data.dataset": "kitti"})
    assert (kitti.data.train_crop, kitti.data.max_depth, kitti.data.frame_size) == ((352, 704), 80.0, None)
    assert (kitti.bins.n_bins, kitti.evaluation.protocol, kitti.augment.brightness) == (257, "adabins-kb-garg", (0.9, 1.1))
    nyu = override(kitti, {"data.dataset": "nyu"})
    assert (nyu.data.train_crop, nyu.data.max_depth) == ((416, 544), 10.0)
    assert (nyu.bins.n_bins, nyu.evaluation.protocol, nyu.augment.brightness) == (49, "nyu-eigen", (0.75, 1.25))


def test_another_student_brings_its_own_encoder_and_widths():
    assert config({"student.name": "resnet50"}).student.encoder == "resnet50"
    assert config({"student.name": "resnet50"}).student.decoder_channels == (2048, 1024, 512, 256, 128)


def test_another_loss_brings_its_own_head():
    assert config().student.head == "dpm"
    assert config({"loss.name": "ssim_si"}).student.head == "regression"
    assert override(config({"loss.name": "si"}), {"loss.name": "l_depth"}).student.head == "dpm"


def test_what_the_document_states_wins_over_presets_and_survives_another_data_set():
    stated = config({"bins.n_bins": 20, "data.max_depth": 7.0, "student.head": "dpm", "student.encoder": "resnet18"})
    moved = override(stated, {"data.dataset": "nyu", "loss.name": "si", "student.name": "small"})
    assert (moved.bins.n_bins, moved.data.max_depth) == (20, 7.0)
    assert (moved.student.head, moved.student.encoder) == ("dpm", "resnet18")


def test_what_was_stated_stays_whatever_becomes_of_the_document():
    document = {**INDOOR, "data": {"dataset": "synthetic-indoor", "train_crop": [32, 64]}}
    built = build(document)
    document["data"]["train_crop"][0] = 0
    built.stated["data"].clear()
    assert built.stated["data"] == {"dataset": "synthetic-indoor", "train_crop": [32, 64]}


def test_overriding_leaves_the_config_it_started_from_alone():
    before = config()
    document = copy.deepcopy(before.document())
    override(before, {"loss.sigma": 0.8, "data.train_crop": [32, 32]})
    assert before.document() == document


# -- overrides ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "section", "name", "value"),
    [
        ("loss.sigma=0.8", "loss", "sigma", 0.8),
        ("optim.lr=1e-4", "optim", "lr", 1e-4),  # a string to YAML 1.1, which wants 1.0e-4
        ("evaluation.flip_tta=false", "evaluation", "flip_tta", False),
        ("loss.ssim_range=null", "loss", "ssim_range", None),
        ("data.train_crop=[48, 64]", "data", "train_crop", (48, 64)),
        ("student.encoder=resnet18.a1_in1k", "student", "encoder", "resnet18.a1_in1k"),
        ("teacher.name=a=b", "teacher", "name", "a=b"),
    ],
)
def test_overrides_are_read_as_yaml(text, section, name, value):
    read = getattr(getattr(config(parse_overrides([text])), section), name)
    assert read == value
    assert type(read) is type(value)


def test_a_whole_section_can_be_overridden():
    assert config(parse_overrides(["optim={epochs: 3, lr: 0.1}"])).optim.epochs == 3
    assert config({"teacher": None, **GROUND_TRUTH}).teacher is None


@pytest.mark.parametrize("text", ["loss.sigma", "=0.8", "loss.sigma=[1, "])
def test_an_override_that_is_none_is_quoted(text):
    with pytest.raises(UserError) as caught:
        parse_overrides([text])
    assert f"--set {text!r}: " in str(caught.value)


def test_a_setting_is_not_a_section():
    assert "loss.sigma.value: 'sigma' is a single setting, not a section" in refusal(
        {"loss.sigma": 0.8, "loss.sigma.value": 0.8}
    )


def test_a_file_is_read_with_overrides(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(INDOOR))
    assert load_config(path, ["loss.sigma=0.8"]).document() == config({"loss.sigma": 0.8}).document()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "expected a mapping of settings, got list"),
        ("", "got NoneType"),
        ("loss: {name: si, sigma: 1, name: mse}", "'name' is given twice"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=f"run.yaml: .*{reason}") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"absent.yaml: no such file"):
        load_config(tmp_path / "absent.yaml")


# -- diff -----------------------------------------------------------------------------------------------------------------


def test_diff_tells_both_values_of_what_differs_and_nothing_else():
    assert diff(config(), config()) == {}
    other = config({"loss.sigma": 0.8, "teacher": None, **GROUND_TRUTH})
    assert diff(config(), other) == {
        "loss.name": ("tie_kd", "si"),
        "loss.sigma": (0.15, 0.8),
        "loss.target": ("teacher", "ground_truth"),
        "student.head": ("dpm", "regression"),
        "teacher.align": ("none", None),
        "teacher.flip_tta": (True, None),
        "teacher.maps": ("maps", None),
        "teacher.metric": (False, None),
        "teacher.name": ("adabins", None),
    }


# -- identity -------------------------------------------------------------------------------------------------------------

# Every setting that a TIE-KD run on rendered data reads, with another value.
READ = {
    "data.dataset": "synthetic-outdoor",
    "data.train_frames": 7,
    "data.test_frames": 7,
    "data.frame_size": [128, 160],
    "data.scene_seed": 1,
    "data.min_depth": 0.1,
    "data.max_depth": 9.0,
    "data.train_crop": [32, 64],
    "teacher.name": "bts",
    "student.name": "small",
    "student.encoder": "resnet18",
    "student.levels": [0, 1, 2, 3],
    "student.output_stride": 16,
    "student.decoder": "fastdepth",
    "student.decoder_channels": [64, 48, 32, 8],
    "student.head": None,  # no other head goes with this loss
    "student.pretrained": True,
    "bins.n_bins": 31,
    "bins.spacing": "log",
    "loss.name": "l_dpm",
    "loss.target": None,  # no other target goes with this loss
    "loss.parts": {"l_dpm": {}, "l_depth": {"weight": 2}},
    "loss.alpha": 0.2,
    "loss.scale": 1.0,
    "loss.dpm": "integral",
    "loss.sigma": 0.8,
    "loss.temperature": 2.0,
    "loss.ssim_range": 5.0,
    "optim.epochs": 25,
    "optim.batch_size": 8,
    "optim.lr": 2e-3,
    "optim.lr_factor": 10.0,
    "optim.betas": [0.9, 0.99],
    "optim.weight_decay": 0.1,
    "optim.decay_norms": False,
    "optim.schedule": "cosine",
    "optim.momentum_cycle": [0.95, 0.85],
    "optim.warmup": 0.2,
    "optim.div_factor": 10.0,
    "optim.final_div_factor": 10.0,
    "optim.clip_grad_norm": 1.0,
    "optim.precision": "bf16",
    "augment.rotate_p": 0.1,
    "augment.rotate_degrees": 5.0,
    "augment.flip_p": 0.0,
    "augment.colour_p": 0.1,
    "augment.gamma": [0.8, 1.2],
    "augment.brightness": [0.8, 1.2],
    "augment.colour": [0.8, 1.2],
    "evaluation.protocol": "bts-garg",
    "evaluation.flip_tta": False,
    "fidelity": "released",
    "seed": 1,
}
# Paths, execution, and what only other losses read.
NOT_READ = {
    "data.root": "elsewhere",
    "data.folder": None,  # test_folder.py
    "data.labelled": 5,  # on a teacher, all frames are trained on
    "data.label_seed": 3,
    "data.train_split": "other.txt",
    "data.test_split": "other.txt",
    "teacher.maps": "elsewhere",
    "teacher.run": {"student.name": "small"},  # what its maps are made from is in their digest
    "teacher.weights": "w.safetensors",
    "teacher.hf": "org/model@main",
    "teacher.metric": True,
    "teacher.flip_tta": False,
    "teacher.align": "median",  # in the id of the maps, too
    "loss.si_weight": 2.0,
    "loss.si_mean_weight": 0.5,
    "loss.mse_weight": 2.0,
    "loss.ssim_weight": 2.0,
    "loss.chamfer_weight": 2.0,
    "loss.fov": 90.0,
    "evaluation.every": 2,
    "evaluation.also": ["none+median"],
    "execution.device": "cpu",
    "execution.kernel": "triton",
    "execution.compile": True,
    "execution.workers": 2,
    "execution.checkpoint_minutes": 1.0,
    "execution.keep_checkpoint": True,
    "execution.cpus_per_worker": 3,
    "execution.gpus_per_worker": 1.0,
    "execution.data_workers": 4,
    "execution.cache_gb": 0.5,
    "execution.packed": "elsewhere",
    "execution.store": "s3://bucket/store",
}


def test_every_setting_is_either_read_or_not():
    assert READ.keys() | NOT_READ.keys() == flatten(config().document()).keys()
    assert not READ.keys() & NOT_READ.keys()


@pytest.mark.parametrize("setting", [name for name, value in READ.items() if value is not None])
def test_what_a_run_reads_identifies_it(setting):
    assert config({setting: READ[setting]}).fingerprint() != config().fingerprint()


@pytest.mark.parametrize("setting", NOT_READ)
def test_what_a_run_does_not_read_leaves_its_identity_alone(setting):
    assert config({setting: NOT_READ[setting]}).fingerprint() == config().fingerprint()


@pytest.mark.parametrize(
    ("run", "change"),
    [
        ({"loss.name": "si"}, {"loss.dpm": "two_hot", "loss.sigma": 0.8, "loss.temperature": 2.0, "loss.alpha": 0.3}),
        ({"loss.dpm": "integral"}, {"loss.temperature": 2.0}),
        ({"loss.dpm": "two_hot"}, {"loss.sigma": 0.8, "loss.temperature": 2.0}),
        ({"loss.name": "mse"}, {"loss.ssim_range": 5.0, "loss.si_weight": 2.0}),
        ({"loss.name": "si"}, {"bins.n_bins": 7, "bins.spacing": "log"}),  # its head is a regression
        (GROUND_TRUTH, {"teacher": None}),
        (GROUND_TRUTH, {"teacher.name": "bts"}),
        ({"data.dataset": "kitti"}, {"data.scene_seed": 3}),
    ],
)
def test_settings_that_this_run_does_not_read_leave_its_identity_alone(run, change):
    assert config(run | change).fingerprint() == config(run).fingerprint()


def test_bins_identify_a_run_whose_head_has_them_whatever_its_loss():
    run = {"loss.name": "si", "student.head": "dpm"}
    assert config(run | {"bins.n_bins": 7}).fingerprint() != config(run).fingerprint()


def test_the_default_dpm_leaves_the_identity_as_it_was_without_a_choice():
    assert "dpm" not in config({"loss.dpm": "softmax_density"}).identity()["loss"]
    assert config({"loss.dpm": "integral"}).identity()["loss"] == {
        "name": "tie_kd", "target": "teacher", "alpha": 0.1, "scale": 10.0, "dpm": "integral", "sigma": 0.15, "ssim_range": None
    }  # fmt: skip


def test_stating_a_preset_or_a_default_is_the_same_run():
    assert config({"bins.n_bins": 32, "loss.sigma": 0.15, "optim.epochs": 24}).fingerprint() == config().fingerprint()
    assert config({"loss.scale": 10}).fingerprint() == config({"loss.scale": 10.0}).fingerprint()


@pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
@pytest.mark.parametrize("overrides", [{}, GROUND_TRUTH, {"optim.lr": 1e-5, "loss.sigma": 1 / 3}], ids=str)
def test_a_written_document_is_the_same_run(write, overrides):
    before = config(overrides)
    after = build(yaml.safe_load(write(before.document())))
    assert after.document() == before.document()
    assert after.fingerprint() == before.fingerprint()


def test_the_fingerprint_covers_the_digests_of_the_inputs():
    run = config()
    prints = [run.fingerprint(inputs) for inputs in ({}, {"train": "a"}, {"train": "b"}, {"test": "a"})]
    assert len(set(prints)) == 4
    assert run.fingerprint({"train": "a", "test": "b"}) == run.fingerprint({"test": "b", "train": "a"})
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)


# -- quirks ---------------------------------------------------------------------------------------------------------------


def test_a_quirk_that_does_not_act_leaves_the_identity_alone():
    for quirk in ("rows_from_110", "ignored_weights", "alpha_unbounded", "baseline_on_teacher"):
        assert config({"fidelity": [quirk]}).fingerprint() == config().fingerprint()
    assert config({"fidelity": []}).fingerprint() == config().fingerprint()


@pytest.mark.parametrize(
    ("quirk", "run", "overruled"),
    [
        ("fixed_sigma", {}, {"loss.sigma": 0.8}),
        ("ssim_unit_range", {}, {"loss.ssim_range": 5.0}),
        ("ignored_weights", {"loss.name": "mse"}, {"loss.mse_weight": 2.0}),
        ("ignored_weights", {"loss.name": "ssim_si"}, {"loss.si_weight": 2.0}),
    ],
)
def test_a_setting_that_a_quirk_overrules_identifies_a_run_without_it_alone(quirk, run, overruled):
    quirky = run | {"fidelity": [quirk]}
    assert config(quirky | overruled).fingerprint() == config(quirky).fingerprint()
    assert config(run | overruled).fingerprint() != config(run).fingerprint()
    assert config(quirky).fingerprint() != config(run).fingerprint()


@pytest.mark.parametrize("quirk", ["fixed_sigma", "kl_epsilon", "uniform_outside"])
def test_the_released_arithmetic_has_no_other_dpm(quirk):
    assert f"loss.dpm: only 'softmax_density' goes with the quirk {quirk}, got 'integral'" in refusal(
        {"loss.dpm": "integral", "fidelity": [quirk]}
    )
    assert "the quirks fixed_sigma, kl_epsilon, uniform_outside, got" in refusal(
        {"loss.dpm": "two_hot", "fidelity": "released"}
    )
    assert config({"loss.dpm": "integral", "loss.name": "mse", "fidelity": "released"}).quirks  # which reads no DPM


def test_the_order_of_quirks_and_naming_all_of_them_is_the_same_run():
    quirks = ["unmasked", "kl_epsilon", "fixed_sigma"]
    assert config({"fidelity": quirks}).document() == config({"fidelity": quirks[::-1]}).document()
    assert config({"fidelity": [*quirks, "unmasked"]}).document() == config({"fidelity": quirks}).document()
    assert config({"fidelity": list(QUIRKS)}).fingerprint() == config({"fidelity": "released"}).fingerprint()


@pytest.mark.parametrize("fidelity", ["released", ["alpha_unbounded"]])
def test_alpha_may_exceed_1_where_the_released_code_let_it(fidelity):
    assert config({"loss.alpha": 1.5, "fidelity": fidelity}).loss.alpha == 1.5


def test_a_baseline_on_the_teacher_needs_its_maps(tiny, tmp_path):
    plain, quirky = tiny(GROUND_TRUTH), tiny(GROUND_TRUTH | {"fidelity": ["baseline_on_teacher"]})
    assert (plain.method, quirky.method) == ("Baseline", "Baseline")
    assert input_digests(quirky).keys() - input_digests(plain).keys() == {"teacher_maps"}
    assert quirky.identity()["teacher"] == {"name": "embedded"}

    nowhere = {"teacher.maps": str(tmp_path / "nowhere")}
    check_inputs(override(plain, nowhere))
    with pytest.raises(UserError, match="nowhere"):
        check_inputs(override(quirky, nowhere))


def test_a_baseline_on_the_teacher_is_trained_as_its_student_is(tiny, execute_run):
    once = {"optim.epochs": 1, "loss.name": "si"}
    runs = [once, once | GROUND_TRUTH | {"fidelity": ["baseline_on_teacher"]}, once | GROUND_TRUTH]
    student, quirky, plain = (execute_run(tiny(run))[0].read_table("epochs.parquet")["loss"].item() for run in runs)
    assert quirky == student
    assert quirky != plain


# -- paths ----------------------------------------------------------------------------------------------------------------


def test_absolute_paths_are_readable_from_any_folder_and_leave_the_run_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = config({"data.root": "data", "execution.store": "store", "execution.packed": "packed"})
    absolute = relative.with_absolute_paths()
    assert absolute.data.root == str(tmp_path / "data")
    assert absolute.teacher.maps == str(tmp_path / "maps")
    assert absolute.execution.store == str(tmp_path / "store")
    assert absolute.execution.packed == str(tmp_path / "packed")
    assert absolute.fingerprint() == relative.fingerprint()


def test_absolute_paths_survive_an_override():
    assert Path(override(config().with_absolute_paths(), {"seed": 1}).teacher.maps).is_absolute()


def test_uris_and_missing_paths_stay_as_they_are():
    absolute = config({"teacher": None, **GROUND_TRUTH, "execution.store": "s3://bucket/store"}).with_absolute_paths()
    assert (absolute.execution.store, absolute.data.root, absolute.teacher) == ("s3://bucket/store", None, None)
