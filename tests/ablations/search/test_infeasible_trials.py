"""What `tiekd` shows of trials that violate a constraint, from recorded trials."""

import json

import pytest
from optuna.trial import TrialState, create_trial

from ablations.search.optuna_storage import optuna_params
from ablations.search.prepared_search import open_search, prepare_search
from ablations.search.warm_start import _distributions
from tiekd.data.inputs import run_id_of
from tiekd.errors import UserError
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

WIDTHS = {"best": [64, 48, 32, 16], "worse": [32, 24, 16, 8], "refused": [128, 96, 64, 48]}
SPACE = {"parameters": {"student.decoder_channels": {"type": "categorical", "choices": [*WIDTHS.values()]}}}
CAUSE = {"best": "rmse 5, limit 4", "refused": "parameters 500000, limit 400000"}
VALUES = {"best": 0.1, "worse": 0.2}


@pytest.fixture
def folder(tmp_path, tiny, as_yaml):
    """A search with three trials: the best one violates a constraint, another one was not trained because of one."""
    as_yaml(tmp_path / "space.yaml", SPACE)
    constraints = ["parameters <= 4e5", "rmse <= 4"]
    search = {"space": "space.yaml", "scheduler": "none", "trials": 3, "constraints": constraints}
    as_yaml(tmp_path / "study.yaml", {"name": "demo", "base": tiny, "search": search})
    prepared, store = prepare_search(tmp_path / "study.yaml", str(tmp_path / "store")), RunStore(tmp_path / "store")
    with open_search(prepared) as study:
        for name, widths in WIDTHS.items():
            point = {"student.decoder_channels": widths}
            config = prepared.seed_runs.config(point, 0)
            record = store.run(run_id_of(config))
            record.write_config(config)
            attrs = {"run_id": record.run_id, "run_ids": [record.run_id]}
            attrs |= {"cause": CAUSE[name]} if name in CAUSE else {}
            violations = {"parameters <= 400000": 0.25} if name == "refused" else {"rmse <= 4": 0.25 if name in CAUSE else 0.0}
            ended = {"state": TrialState.PRUNED}
            if name in VALUES:
                record.write_json("summary.json", {"metrics": {"abs_rel": VALUES[name], "rmse": 5.0 if name in CAUSE else 4.0}})
                record.write_status(Status("done", epoch=2, epochs=2))
                ended = {"value": VALUES[name]}
                attrs |= {"by_seed": {"abs_rel": [VALUES[name]]}}
            parameters = {"params": optuna_params(point), "distributions": _distributions(prepared.space, point)}
            study.add_trial(create_trial(user_attrs=attrs, constraints=violations, **parameters, **ended))
    return tmp_path


def test_infeasible_trials_are_listed_marked_and_never_the_best(folder, tiekd):
    outcome = tiekd("search", folder / "study.yaml", "--store", folder / "store")
    assert outcome.code == 0, outcome.err
    assert "0 of 3 trials to run, objective abs_rel, subject to parameters <= 400000, rmse <= 4" in outcome.out
    assert "search demo-search: 2 infeasible, 1 complete" in outcome.out
    listed = f"0 ({CAUSE['best']}), 2 ({CAUSE['refused']})"
    assert f"2 trials violate a constraint (parameters <= 400000, rmse <= 4): {listed}" in outcome.out
    assert "best trial: abs_rel 0.2000 with decoder_channels=[32, 24, 16, 8]" in outcome.out
    store = RunStore(folder / "store")
    findings = store.read_json("studies/demo-search/findings.json")
    assert [trial["params"] for trial in findings["best"]] == [{"student.decoder_channels": WIDTHS["worse"]}]
    assert [trial["cause"] for trial in findings["infeasible"]] == [*CAUSE.values()]

    progress = json.loads(tiekd("status", store.uri, "--json").out)["studies"]["demo-search"]
    assert progress["states"] == {"done": 1, "infeasible": 2}
    assert progress["best"]["abs_rel"] == 0.2

    assert tiekd("report", store.uri, "--out", folder / "report").code == 0
    report = (folder / "report/report.md").read_text()
    states = [row.rstrip("| ").rpartition("| ")[2] for row in report.splitlines() if row.startswith(r"| \[")]
    assert states == ["done", f"infeasible: {CAUSE['best']}", f"infeasible: {CAUSE['refused']}"]
    assert r"The search asks for parameters \<= 400000, rmse \<= 4. Infeasible trials violate that" in report


def test_other_constraints_need_another_search(folder, tiekd, as_yaml, tiny):
    search = {"space": "space.yaml", "scheduler": "none", "trials": 3, "constraints": ["parameters <= 5e5"]}
    as_yaml(folder / "study.yaml", {"name": "demo", "base": tiny, "search": search})
    prepared = prepare_search(folder / "study.yaml", str(folder / "store"))
    with pytest.raises(UserError, match="its trials so far have another base, data, objectives, seeds or constraints"):
        open_search(prepared).__enter__()
