"""Prepare a search from its store and its database, without a cluster."""

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from ablations.planning.study import load_study
from ablations.search.prepared_search import (
    SearchOptions,
    SearchRecord,
    enqueue_base,
    open_search,
    point_cells,
    prepare_search,
    start_search,
)
from tiekd.data.inputs import run_id_of
from tiekd.errors import UserError
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

SEARCH = {"space": "bins.yaml", "trials": 5, "seeds": [3, 4, 5]}
POINT = {"bins.n_bins": 32, "bins.spacing": "log"}


@pytest.fixture
def prepared(study_file, tiny, tmp_path):
    def make(options=SearchOptions(), bins=None, **search):
        base = tiny | {"loss": {"name": "tie_kd"}} | ({"bins": bins} if bins else {})
        path = study_file(base=base, search=SEARCH | search)
        return prepare_search(path, str(tmp_path / "store"), [], None, options)

    return make


def left(prepared):
    return start_search(prepared, Console(quiet=True))


def test_current_run_id_is_the_first_unfinished_run(prepared, tmp_path):
    search, store = prepared(), RunStore(tmp_path / "store")
    run_ids = [run_id_of(search.seed_runs.config(POINT, seed)) for seed in SEARCH["seeds"]]
    assert len(set(run_ids)) == 3
    assert search.current_run_id(POINT) == run_ids[0]
    store.run(run_ids[0]).write_status(Status("done"))
    store.run(run_ids[1]).write_status(Status("running"))
    assert search.current_run_id(POINT) == run_ids[1]
    for run_id in run_ids[1:]:
        store.run(run_id).write_status(Status("done"))
    assert search.current_run_id(POINT) == run_ids[2]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("seed", "seed cannot be a {role}; list it under seeds"),
        ("execution.data_workers", "execution.data_workers does not change the results and applies to a whole study"),
        ("execution.cpus_per_worker", "execution.cpus_per_worker does not change the results and applies to a whole study"),
        ("evaluation.every", "evaluation.every does not change the results, so all its values would be one and the same run"),
    ],
)
def test_setting_that_no_point_can_set_is_refused_as_a_parameter_and_as_a_factor(study_file, as_yaml, tmp_path, path, message):
    as_yaml(tmp_path / "made-up.yaml", {"parameters": {path: {"type": "int", "low": 1, "high": 3}}})
    with pytest.raises(UserError, match=f"search space: {message.format(role='parameter')}"):
        prepare_search(study_file(search=SEARCH | {"space": "made-up.yaml"}))
    with pytest.raises(UserError, match=f"factor {path}: {message.format(role='factor')}"):
        load_study(study_file(factors={path: [1, 2, 3]}))


SIGMA = {"loss.sigma": {"type": "float", "low": 0.1, "high": 2.0}}
LOSS = {"loss.name": {"type": "categorical", "choices": ["si", "mse", "tie_kd"]}}


def test_parameter_that_no_run_reads_is_refused(study_file, as_yaml, tmp_path, tiny):
    base = tiny | {"loss": {"name": "si"}}

    def prepare(parameters):
        as_yaml(tmp_path / "made-up.yaml", {"parameters": parameters})
        return prepare_search(study_file(base=base, search=SEARCH | {"space": "made-up.yaml"}))

    with pytest.raises(UserError, match=r"^search space made-up.yaml: loss.sigma: no run of this search reads it$"):
        prepare(SIGMA)
    prepare(SIGMA | LOSS)
    prepare({"loss.sigma": SIGMA["loss.sigma"] | {"when": {"loss.name": ["tie_kd"]}}} | LOSS)
    with pytest.raises(UserError, match=r"loss.sigma: no run of this search reads it$"):
        prepare({"loss.sigma": SIGMA["loss.sigma"] | {"when": {"loss.name": ["mse"]}}} | LOSS)


def test_label_varies_only_together_with_what_it_names(study_file):
    with pytest.raises(UserError, match=r"factor teacher.name: teacher.name does not change the results"):
        load_study(study_file(factors={"teacher.name": ["a", "b"]}))
    load_study(study_file(factors={"teacher": {"a": {"teacher.name": "a", "teacher.maps": "a"}}}))


def queued(prepared):
    with open_search(prepared) as study:
        enqueue_base(prepared, study)
        return [trial.system_attrs["fixed_params"] for trial in study.get_trials(states=(TrialState.WAITING,))]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"seeds": [0, 1, 2]}, "search.race: needs more than 3 seeds, got 3"),
        ({"objectives": ["parameters"], "scheduler": "none"}, "search.race: compares a metric by seed, got .* parameters"),
        ({"bins": {"n_bins": 16}}, "search.race: the base config must be in the space dpm.yaml"),
        ({"sampler": "grid"}, "search.race: grid does not begin with the base config"),
    ],
)
def test_race_without_a_base_to_compare_with_is_refused(prepared, search, message):
    settings = {"space": "dpm.yaml", "race": True, "seeds": [0, 1, 2, 3], "bins": {"n_bins": 32}}
    assert prepared(**settings).seed_runs.race
    with pytest.raises(UserError, match=message):
        prepared(**settings | search)


BASE_WITHIN = {"space": "dpm.yaml", "seeds": [0]}  # its n_bins begin at 32


def test_base_is_enqueued_once_as_the_first_trial(prepared):
    search = prepared(bins={"n_bins": 32}, **BASE_WITHIN)
    assert (queued(search), queued(search)) == ([search.base_point], [search.base_point])
    assert search.base_point.items() >= {"loss.temperature": 1.0, "loss.alpha": 0.1, "bins.n_bins": 32}.items()


@pytest.mark.parametrize(("n_bins", "sampler"), [(16, "tpe"), (32, "grid")])
def test_base_outside_the_space_or_of_a_grid_is_not_enqueued(prepared, n_bins, sampler):
    assert queued(prepared(bins={"n_bins": n_bins}, sampler=sampler, **BASE_WITHIN)) == []


def test_point_has_one_cell_per_seed_and_none_if_it_contradicts_itself(prepared):
    cells = point_cells(prepared(), POINT)
    assert [(c["seed"], c["factors"]) for c in cells.values()] == [(seed, POINT) for seed in SEARCH["seeds"]]
    assert point_cells(prepared(), {"data.min_depth": 90.0}) == {}


@pytest.mark.parametrize(
    ("options", "search", "expected"),
    [
        (SearchOptions(), {}, 5),
        (SearchOptions(trials=9), {}, 9),
        (SearchOptions(hours=2), {"trials": None}, None),
        (SearchOptions(hours=2), {}, 5),
        (SearchOptions(), {"trials": None, "sampler": "grid"}, 21),
        (SearchOptions(), {"sampler": "grid"}, 5),
        (SearchOptions(trials=99), {"sampler": "grid"}, 21),
    ],
)
def test_trials_left_before_the_first_launch(prepared, tree, tmp_path, options, search, expected):
    search = prepared(options, **search)
    before = tree(tmp_path)
    assert left(search) == expected
    assert tree(tmp_path) == before


def test_trials_left_later_and_refusal_of_another_objective_or_seeds(prepared):
    search = prepared()
    with open_search(search) as study:
        for value in (0.5, 0.25):
            trial = study.ask()
            search.space.suggest(trial)
            study.tell(trial, value)
        study.ask()
    assert left(search) == 3
    assert [t.state for t in optuna.load_study(study_name="demo-search", storage=search.url).trials][-1].name == "FAIL"
    for change in ({"seeds": [3]}, {"objectives": ["rmse"]}):
        with pytest.raises(UserError, match="its trials so far have another base, data, objectives, seeds or constraints"):
            left(prepared(**change))


def test_the_record_of_many_points_is_written_a_few_times_and_complete_at_the_end(prepared, tmp_path):
    search, written = prepared(seeds=[0]), set()
    file = tmp_path / "store/studies/demo-search/study.json"
    with open_search(search) as study:
        record = SearchRecord(search, study)
        for n_bins in range(2, 402):
            record.add({"bins.n_bins": n_bins, "bins.spacing": "log"})
            written.add(file.stat().st_mtime_ns)
        record.write()
    assert 50 < len(written) < 170  # 50 + log(400 / 50) / log(1.02)
    assert len(search.store.read_study(search.name)["cells"]) == 400
