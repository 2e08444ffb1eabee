"""A search's memory: one Optuna study in a database. Knows no Ray.

A trial's user attributes say what Optuna does not: `run_id` and `run_ids` (its runs), `epoch` (reached), `by_seed` (each
objective's value for each seed), `cause` (of a failure), `repeats` (the trial of a dead launch that it stands for), `warm`
(it was no trial of this search: its runs were in the store before).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from ablations.planning.study import SearchConfig
from ablations.search.samplers import SAMPLERS
from search_spaces.space import Point, SearchSpace
from tiekd.errors import StoreError, UserError
from tiekd.store.run_store import RunStore

DATABASE_TIMEOUT_S = 10  # until a database server counts as silent
FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)


def storage_url(option: str | None, store: RunStore, name: str) -> str:
    """The database of a search: the option's, else an SQLite file in the study's folder.

    Raises UserError where there is none, and for a URL that is none.
    """
    if option:
        return _checked(option)
    if not store.local:
        raise UserError(
            f"store {store.uri}: SQLite needs a folder; name a database for this search's trials: "
            "--storage postgresql://USER:PASSWORD@HOST/DATABASE, or OPTUNA_STORAGE"
        )
    return f"sqlite:///{store.filesystem[1]}/studies/{name}/optuna.db"


def _checked(given: str) -> str:
    try:
        url = make_url(given)
        if url.drivername == "postgresql":  # of its drivers, the extra `postgres` brings this one
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError):
        # Not shown: it may hold a password.
        raise UserError("--storage: not a database URL; valid: sqlite:///FILE, postgresql://USER@HOST/DATABASE") from None
    except ModuleNotFoundError as error:
        raise UserError(f"--storage: {error}; for PostgreSQL: pip install 'tiekd[postgres]'") from None
    return url.render_as_string(hide_password=False)


def hide_password(url: str) -> str:
    """A database's URL without its password."""
    return make_url(url).render_as_string()


@contextlib.contextmanager
def connect(url: str) -> Iterator[BaseStorage]:
    """The database, with Optuna's tables. Raises UserError where it does not answer, StoreError where it fails later on."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    server = (
        {} if url.startswith("sqlite") else {"connect_args": {"connect_timeout": DATABASE_TIMEOUT_S}, "pool_pre_ping": True}
    )
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=server)
    except SQLAlchemyError as error:
        raise UserError(f"--storage {hide_password(url)}: the database does not answer ({_cause(error)})") from None
    try:
        yield storage
    except (StorageInternalError, SQLAlchemyError) as error:
        raise StoreError(f"the search's database {hide_password(url)} failed: {_cause(error)}") from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _cause(error: BaseException) -> str:
    """The database's own words, on one line."""
    error = error.__cause__ if isinstance(error, StorageInternalError) else error
    return str(getattr(error, "orig", error)).splitlines()[0]


def study_exists(name: str, url: str) -> bool:
    """Whether a database holds the study of that name; makes no file."""
    parts = make_url(url)
    if parts.drivername.startswith("sqlite") and not Path(parts.database or "").is_file():
        return False
    with connect(url) as storage:
        return name in optuna.study.get_all_study_names(storage)


def open_study(name: str, storage: BaseStorage, search: SearchConfig) -> optuna.Study:
    """The Optuna study of that name, made if it is not there."""
    directions = [f"{mode}imize" for mode in search.modes]
    study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    # A resumed search must not draw its first points again.
    study.sampler = SAMPLERS[search.sampler].build(search.sampler_seed + len(get_trials(study)))
    return study


def get_trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Trials in these states, or all; not to be changed."""
    return study.get_trials(deepcopy=False, states=states or None)


def changed_parameter(study: optuna.Study, space: SearchSpace) -> str:
    """The first parameter of another type or with other choices than in the trials so far; "" for none. Ranges may change."""
    for trial in get_trials(study):
        for path, drawn_from in trial.distributions.items():
            if path in space.parameters and _kind(drawn_from) != _kind(space.parameters[path]):
                return path
    return ""


def _kind(parameter: Any) -> tuple:
    """Of a space's parameter, or of what Optuna keeps of it."""
    name = getattr(parameter, "type", type(parameter).__name__.removesuffix("Distribution").lower())
    return name, getattr(parameter, "choices", ())


def requeue_interrupted(study: optuna.Study) -> None:
    """Fail the running trials of a launch that died, and put their points into the queue."""
    for trial in get_trials(study, TrialState.RUNNING):
        study.tell(trial.number, state=TrialState.FAIL)
        if point := trial_point(trial):
            study.enqueue_trial(point, user_attrs={"repeats": trial.number})


def trial_point(trial: FrozenTrial) -> Point:
    """A trial's point, also of one that was put into the queue and had not drawn all its parameters."""
    return trial.system_attrs.get("fixed_params", {}) | trial.params


def uses_budget(trial: FrozenTrial) -> bool:
    """Whether a trial used up budget: all that ended; those of a launch that died are repeated, and have no cause."""
    return (trial.state in FINISHED_STATES or "cause" in trial.user_attrs) and "warm" not in trial.user_attrs


def budget_used(study: optuna.Study) -> int:
    return sum(map(uses_budget, get_trials(study)))


def remaining_points(study: optuna.Study, grid: list[Point]) -> list[Point]:
    """The points of a grid that no trial has had, nor waits to have."""
    had = [
        trial_point(t)
        for t in get_trials(study)
        if t.state in (*FINISHED_STATES, TrialState.WAITING) or "cause" in t.user_attrs
    ]
    return [point for point in grid if point not in had]


def finish_trial(study: optuna.Study, trial: optuna.Trial, outcome: dict[str, Any], objectives: list[str]) -> None:
    """Tell Optuna how a trial ended. An outcome without a state is of a trial that its scheduler stopped."""
    for name in ("run_id", "run_ids", "epoch"):
        if name in outcome:
            trial.set_user_attr(name, outcome[name])
    if "by_seed" in outcome:
        trial.set_user_attr("by_seed", dict(zip(objectives, outcome["by_seed"], strict=True)))
    if outcome.get("state") == "done":
        study.tell(trial, [outcome[name] for name in objectives])
    elif "state" in outcome:
        trial.set_user_attr("cause", outcome.get("cause") or outcome["state"])
        study.tell(trial, state=TrialState.FAIL)
    else:
        report_value(trial, outcome, objectives)
        study.tell(trial, state=TrialState.PRUNED)


def report_value(trial: optuna.Trial, outcome: dict[str, Any], objectives: list[str]) -> None:
    """Keep a value on the way, from which samplers learn of pruned trials; Optuna has none where objectives are several."""
    if len(objectives) == 1 and objectives[0] in outcome:
        trial.report(outcome[objectives[0]], outcome["epoch"])
