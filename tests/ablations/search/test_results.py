"""The results of a search, from simulated trials."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from rich.console import Console

from ablations.planning.search_config import SearchConfig
from ablations.planning.search_point import SeedRuns
from ablations.search.results import (
    MIN_TRIALS_FOR_IMPORTANCE,
    collect_results,
    floors_of,
    print_results,
    write_best_config,
)
from tiekd.config import load_config
from tiekd.store.run_store import RunStore


def search_of(*objectives, seeds=(0, 1, 2)):
    return SearchConfig(space="made-up.yaml", objectives=list(objectives), seeds=list(seeds), trials=9)


@pytest.fixture
def study():
    """Make a study of complete trials, each given as its temperature and each objective's values per seed."""

    def make(search, *trials):
        made = optuna.create_study(directions=[f"{mode}imize" for mode in search.modes])
        for number, (temperature, *values) in enumerate(trials):
            attrs = {"by_seed": dict(zip(search.objectives, values, strict=True)), "run_id": f"run-{number}", "run_ids": []}
            made.add_trial(
                create_trial(
                    params={"loss.temperature": temperature},
                    distributions={"loss.temperature": FloatDistribution(0.0, 100.0)},
                    values=[sum(v) / len(v) for v in values],
                    user_attrs=attrs,
                )
            )
        made.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"cause": "why"}))
        return made

    return make


def test_trials_are_sorted_by_mean_and_have_a_spread(study):
    search = search_of("abs_rel")
    results = collect_results(study(search, (1.0, [0.3, 0.3, 0.3]), (2.0, [0.1, 0.2, 0.3]), (3.0, [0.5, 0.4, 0.6])), search)
    assert [t["params"]["loss.temperature"] for t in results.best] == [2.0, 1.0, 3.0]
    assert results.best[0]["spread"]["abs_rel"] == pytest.approx(0.1)
    assert results.best[0]["by_seed"] == {"abs_rel": [0.1, 0.2, 0.3]}
    assert (results.front, results.importance) == ([], {})


def test_one_seed_has_no_spread(study):
    search = search_of("delta1", seeds=[4])
    results = collect_results(study(search, (1.0, [0.7]), (2.0, [0.9])), search)
    assert [(t["value"], t["spread"]) for t in results.best] == [(0.9, {"delta1": None}), (0.7, {"delta1": None})]


def test_pareto_front_and_best_trial_are_feasible(study):
    search = search_of("abs_rel", "milliseconds", seeds=[0])
    made, points = study(search, (1.0, [0.3], [1.0]), (3.0, [0.4], [0.5])), {"params": {}, "distributions": {}}
    attrs = {"by_seed": {"abs_rel": [0.1], "milliseconds": [0.1]}, "cause": "rmse 5, limit 4", "run_id": "run-9", "run_ids": []}
    made.add_trial(create_trial(values=[0.1, 0.1], user_attrs=attrs, constraints={"rmse <= 4": 0.25}, **points))
    results = collect_results(made, search)
    assert [trial["run_id"] for trial in results.best] == [trial["run_id"] for trial in results.front] == ["run-0", "run-1"]
    assert results.infeasible == [{"number": 3, "params": {}, "cause": "rmse 5, limit 4"}]


def test_pareto_front_of_two_objectives(study):
    search = search_of("abs_rel", "milliseconds", seeds=[0])
    results = collect_results(study(search, (1.0, [0.3], [1.0]), (2.0, [0.1], [5.0]), (3.0, [0.4], [2.0])), search)
    assert [t["run_id"] for t in results.front] == ["run-1", "run-0"]
    assert results.best[0]["values"] == {"abs_rel": 0.1, "milliseconds": 5.0}


def test_importance_needs_enough_distinct_trials(study):
    search = search_of("abs_rel", seeds=[0])
    trials = [(float(k), [0.1 * k]) for k in range(MIN_TRIALS_FOR_IMPORTANCE)]
    assert collect_results(study(search, *trials[:-1]), search).importance == {}
    assert collect_results(study(search, *trials), search).importance == {"loss.temperature": 1.0}
    assert (
        collect_results(study(search, *((float(k), [0.5]) for k in range(MIN_TRIALS_FOR_IMPORTANCE))), search).importance == {}
    )


def test_the_floor_is_printed_beside_the_objective(study, capsys, tmp_path):
    search, store = search_of("abs_rel"), RunStore(tmp_path)
    results = collect_results(study(search, (1.0, [0.3]), (2.5, [0.1])), search)
    store.run("run-1").write_json("summary.json", {"metrics": {}, "floor": {"abs_rel": 0.0125}})
    store.run("run-0").write_json("summary.json", {"metrics": {}})  # of a run from before it was stored
    print_results(results, search, Console(width=200), floors_of(results, store))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[2] == "floor of L_DPM"
    assert [line.split() for line in lines[1:3]] == [["1", "0.1000", "0.0125", "2.5", "run-1"], ["0", "0.3000", "1", "run-0"]]


def test_printed_results(study, capsys):
    search = search_of("abs_rel", "milliseconds", seeds=[0, 1])
    results = collect_results(study(search, (1.0, [0.3, 0.5], [1.0, 1.0]), (2.5, [0.1, 0.2], [5.0, 7.0])), search)
    print_results(results, search, Console(width=200))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["trial", "abs_rel", "milliseconds", "temperature", "run"]
    assert lines[1].split() == ["1", "0.1500", "±", "0.0707", "6.0000", "±", "1.4142", "2.5", "run-1"]
    assert "Pareto front of abs_rel, milliseconds: 2 trials" in lines
    assert lines[-1] == "best trial: abs_rel 0.1500 ± 0.0707 over 2 seeds with temperature=2.5"


@pytest.mark.parametrize(
    ("base", "printed"),
    [
        (1.0, "; base config: 0.3500 ± 0.0707"),
        (2.5, " (the base config)"),
        (9.0, ""),  # its trial was pruned
        (None, ""),  # the base is outside the space
    ],
)
def test_best_trial_is_printed_with_the_base(study, capsys, base, printed):
    search = search_of("abs_rel", seeds=[0, 1])
    point = None if base is None else {"loss.temperature": base}
    print_results(
        collect_results(study(search, (1.0, [0.3, 0.4]), (2.5, [0.1, 0.2])), search, point), search, Console(width=200)
    )
    best = "best trial: abs_rel 0.1500 ± 0.0707 over 2 seeds with temperature=2.5"
    assert capsys.readouterr().out.splitlines()[-1] == best + printed


def test_search_without_a_finished_trial_has_no_best(study, capsys):
    search = search_of("abs_rel")
    print_results(collect_results(study(search), search), search, Console(width=200))
    assert capsys.readouterr().out == "no trial has finished\n"


def test_best_config_is_a_run_config(study, tiny, tmp_path):
    search = search_of("abs_rel", seeds=[5, 6])
    results = collect_results(study(search, (1.0, [0.3, 0.5]), (2.5, [0.1, 0.3])), search)
    base = tiny | {"loss": {"name": "tie_kd"}}
    path = write_best_config(results, search, SeedRuns(base, [5, 6], ["abs_rel"]), RunStore(tmp_path), "demo-search")
    assert path == f"{tmp_path}/studies/demo-search/best.yaml"
    config = load_config(path)
    assert (config.loss.temperature, config.seed) == (2.5, 5)
    first, second = (tmp_path / "studies/demo-search/best.yaml").read_text().splitlines()[:2]
    assert first == "# Trial 1 of the search demo-search, the best by abs_rel: 0.2000 ± 0.1414"
    assert second == "# with seeds 5, 6."
