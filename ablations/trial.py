"""What a Tune trial does: one run, carried out in the trial's process."""

from collections.abc import Callable
from typing import Any

from ray import tune

from ablations.runtime_tune import TuneRuntime
from tiekd.config import RunConfig, build
from tiekd.documents import with_values
from tiekd.errors import UserError
from tiekd.run import carry_out, one_line, run_id_of
from tiekd.runtime import LocalRuntime
from tiekd.store import RunRecord, RunStore, Status

Tell = Callable[[dict[str, Any]], None]  # hears of each epoch but the last


def compute_cell(params: dict[str, Any], configs: dict[str, dict]) -> None:
    """A study's cell: `params["run_id"]` names one of the config documents."""
    tune.report(carry_out_run(configs[params["run_id"]], tune.report))


def compute_point(params: dict[str, Any], base: dict[str, Any]) -> None:
    """A search's trial: `params` holds overrides of `base` by dotted path under "point"."""
    tune.report(carry_out_run(with_values(base, params["point"]), tune.report))


def carry_out_run(document: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Carry out the run of a config document, unless the store holds it. Returns its outcome, for `tune.report`.

    The processes of trials outlive them, so nothing is kept.
    """
    try:
        config = build(document)
        store = RunStore(config.execution.store)
        status = carry_out(config, store, lambda record: _runtime(config, record, tell))
        return outcome(store, run_id_of(config), status)
    except UserError as error:  # a point of a search that contradicts itself, or an input that went missing
        return {"run_id": "", "state": "failed", "cause": one_line(error), "epoch": 0}


def _runtime(config: RunConfig, record: RunRecord, tell: Tell) -> TuneRuntime:
    return TuneRuntime(LocalRuntime(config.execution, record), record.run_id, config.optim.epochs, tell)


def outcome(store: RunStore, run_id: str, status: Status) -> dict[str, Any]:
    """A trial's last result: the run's state and, if it is done, its metrics."""
    summary = store.run(run_id).read_json("summary.json") if status.state == "done" else None
    metrics = summary["metrics"] if summary else {}
    return {"run_id": run_id, "state": status.state, "cause": status.cause, "epoch": status.epochs, **metrics}
