import pytest

from ablations.planning.study import STUDIES_FOLDER, find_study, load_study, packaged_studies
from tiekd.errors import UserError

FACTORS = {"loss.sigma": [0.5, 1.0], "method": {"a": {"loss.name": "si"}, "b": {"loss.name": "mse", "loss.mse_weight": 2.0}}}


def test_study_defaults(study_file):
    study = load_study(study_file())
    assert (study.blocks, study.vary, study.seeds, study.report, study.search) == ([{}], "grid", [0], None, None)


def test_packaged_study_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"debug", "dpm", "kitti", "nyu"} <= set(packaged_studies())
    for name in packaged_studies():
        assert find_study(name) == STUDIES_FOLDER / f"{name}.yaml"
    assert load_study("debug").name == "debug"


def test_file_has_precedence_over_a_packaged_study(study_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study_file().rename("debug")
    assert load_study("debug").name == "demo"


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("debgu", r"study: unknown 'debgu'; did you mean debug\? valid: backbones, .*; or the path of a YAML file"),
        ("debgu.yaml", r"study debgu.yaml: no such file"),
        ("studies/debgu", r"study studies/debgu: no such file"),
    ],
)
def test_unknown_study_is_refused_in_one_line(study, message):
    with pytest.raises(UserError, match=message) as caught:
        load_study(study)
    assert "\n" not in str(caught.value)


def test_study_in_memory_is_changed_like_one_from_a_file(study, study_file):
    settings = {"factors": {"loss.sigma": [0.5, 1.0]}, "search": {"space": "dpm.yaml", "trials": 3}}
    changes = {"overrides": {"optim.lr": 0.5}, "name": "other", "seeds": 2}
    in_memory = study(**settings)
    assert load_study(in_memory, **changes) == load_study(study_file(**settings), **changes)
    assert in_memory == study(**settings)
    with pytest.raises(UserError, match=r"--set loss.sigma: study demo varies it"):
        load_study(in_memory, {"loss.sigma": 1.0})
    with pytest.raises(UserError, match="study demo: name: string should match pattern"):
        load_study(in_memory, name="../up")


def test_overrides_change_the_base(study_file):
    study = load_study(study_file(factors=FACTORS), {"optim.lr": 0.5, "bins.n_bins": 8})
    assert (study.base["optim"]["lr"], study.base["bins"]["n_bins"], study.base["optim"]["epochs"]) == (0.5, 8, 2)


def test_seeds_and_name_replace_those_of_the_file(study_file):
    study = load_study(study_file(seeds=[7]), name="other", seeds=3)
    assert (study.name, study.seeds) == ("other", [0, 1, 2])


@pytest.mark.parametrize("path", ["loss.sigma", "loss.name", "loss.mse_weight"])
def test_override_of_a_varied_setting_is_refused(study_file, path):
    with pytest.raises(UserError, match=f"--set {path}: study demo varies it; select cells with --only"):
        load_study(study_file(factors=FACTORS), {path: 1})


def test_override_of_a_setting_varied_in_one_block_is_refused(study_file):
    blocks = [{"loss.sigma": [1.0]}, {"bins.n_bins": [8, 16]}]
    with pytest.raises(UserError, match=r"--set bins.n_bins: study demo varies it"):
        load_study(study_file(factors=blocks), {"bins.n_bins": 4})


def test_override_of_the_seed_is_refused(study_file):
    with pytest.raises(UserError, match=r"--set seed: study demo has its own seeds; use --seeds N"):
        load_study(study_file(), {"seed": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": {}}, r"factor: no such setting: unknown 'factor'; did you mean factors\?"),
        ({"name": "../up"}, r"name: string should match pattern .*, got '../up'"),
        ({"name": ".hidden"}, r"name: string should match pattern"),
        ({"vary": "all"}, r"vary: input should be 'grid' or 'one_at_a_time', got 'all'"),
        ({"seeds": []}, r"seeds: needs at least one"),
        ({"seeds": [0, 1, 0]}, r"seeds: must not repeat a value, got \[0, 1, 0\]"),
        ({"factors": "loss.name"}, r"factors: expected a mapping of factors to levels, or a list of such mappings"),
        ({"factors": {"loss.name": "si"}}, r"factor loss.name: expected a list of single values, or named levels .*, got 'si'"),
        ({"factors": {"crop": [[48, 64]]}}, r"factor crop: expected a list of single values, or named levels"),
        ({"factors": {"method": {"a": "si"}}}, r"factor method: expected .* named levels such as \{a: \{loss.sigma: 0.5\}\}"),
        ({"factors": {"seed": [0, 1]}}, r"factor seed: seed cannot be a factor; list it under seeds"),
        ({"factors": {"device": {"gpu": {"execution.device": "cuda"}}}}, r"execution.device does not change the results"),
        (
            {"search": {"space": "dpm.yaml", "sampler": "tp"}},
            r"search.sampler: unknown 'tp'; did you mean tpe or gp\? valid:",
        ),
        ({"search": {"space": "dpm.yaml", "scheduler": "pbt"}}, r"search.scheduler: 'pbt' .* valid: asha, median, none"),
        (
            {"search": {"space": "dpm.yaml", "objectives": ["absrel"]}},
            r"objectives: unknown 'absrel'; did you mean abs_rel",
        ),
        ({"search": {"space": "dpm.yaml", "objective": "abs_rel"}}, r"search.objective: no such .*did you mean objectives"),
        ({"search": {"space": "dpm.yaml", "objectives": ["rmse", "rmse"]}}, r"search.objectives: must not repeat a value, got"),
        ({"search": {"space": "dpm.yaml", "seeds": [1, 1]}}, r"search.seeds: must not repeat a value, got \[1, 1\]"),
        ({"search": {"space": "dpm.yaml", "seeds": []}}, r"search.seeds: list should have at least 1 item"),
        ({"search": {"space": "dpm.yaml", "hours": 0}}, r"search.hours: input should be greater than 0, got 0"),
        (
            {"search": {"space": "dpm.yaml", "objectives": ["milliseconds", "abs_rel"]}},
            r"search.scheduler: asha compares trials by their first objective at each epoch, but milliseconds is measured only",
        ),
        ({"search": {"space": "dpm.yaml", "trial": 3}}, r"search.trial: no such setting: .*did you mean trials"),
        ({"search": {}}, r"search.space is needed"),
    ],
)
def test_invalid_study_is_refused_in_one_line(study_file, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        load_study(study_file(**settings))
    assert "\n" not in str(caught.value)
    assert "study.yaml: " in str(caught.value)


def test_fewer_than_one_seed_is_refused(study_file):
    with pytest.raises(UserError, match="--seeds: must be at least 1, got 0"):
        load_study(study_file(), seeds=0)


def test_duplicate_level_name_is_refused(study_file):
    path = study_file()
    path.write_text(path.read_text() + "factors:\n  method:\n    a: {loss.name: si}\n    a: {loss.name: mse}\n")
    with pytest.raises(UserError, match="'a' is given twice"):
        load_study(path)


def test_modes_of_the_objectives(study_file):
    objectives = ["rmse", "delta1", "milliseconds"]
    study = load_study(study_file(search={"space": "dpm.yaml", "objectives": objectives}))
    assert (study.search.objective, study.search.modes) == ("rmse", ["min", "max", "min"])
