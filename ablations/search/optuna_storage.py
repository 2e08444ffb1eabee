"""The Optuna study of a search, in a database. Imports no Ray.

User attributes of a trial: `run_id` of its first run and `run_ids` of all its runs; `epoch` reached, over all seeds; `by_seed`,
each objective's value for each seed; `cause` of a failure, or the constraints that it violates; `repeats`, the number of the
interrupted trial that it repeats; `warm`, set if its runs were in the store before the search. Its constraints, which have an
interface of their own, have the names of those of the search, and how far it violates each as values. A point that was not
trained because of a constraint is a pruned trial.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from ablations.planning.constraints import INFEASIBLE, Constraint
from ablations.planning.search_config import SearchConfig
from ablations.search.samplers import build_sampler
from search_spaces.parameters import from_optuna, to_optuna
from search_spaces.space import Point, SearchSpace
from tiekd.errors import StoreError, UserError
from tiekd.store.run_store import RunStore

DATABASE_TIMEOUT_S = 10  # for connecting to a database server
FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)


def storage_url(option: str | None, store: RunStore, name: str) -> str:
    """Return the database URL of a search: the option's, else that of an SQLite file in the study's folder of the store.

    Raises UserError for an invalid URL, and if no URL is given and the store is not a folder.
    """
    if option:
        return _check_url(option)
    if not store.local:
        raise UserError(
            f"store {store.uri}: SQLite needs a folder; give a database for the trials: "
            "--storage postgresql://USER:PASSWORD@HOST/DATABASE, or OPTUNA_STORAGE"
        )
    file = f"{store.root}/studies/{name}/optuna.db"
    return URL.create("sqlite", database=file).render_as_string()  # quotes characters such as "?" and "%"


def _check_url(given: str) -> str:
    try:
        url = make_url(given)
        if url.drivername == "postgresql":  # use the driver that the extra `postgres` installs
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError):
        # The URL is not shown, because it may contain a password.
        raise UserError("--storage: not a database URL; valid: sqlite:///FILE, postgresql://USER@HOST/DATABASE") from None
    except ModuleNotFoundError as error:
        raise UserError(f"--storage: {error}; for PostgreSQL: pip install 'tiekd[postgres]'") from None
    return url.render_as_string(hide_password=False)


def hide_password(url: str) -> str:
    """Return a database URL without its password."""
    return make_url(url).render_as_string()


@contextlib.contextmanager
def open_storage(url: str) -> Iterator[BaseStorage]:
    """Open the database and create Optuna's tables if needed.

    Raises UserError if the database does not answer, StoreError if it fails later.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options: dict[str, Any] = {}
    if not url.startswith("sqlite"):
        options = {"connect_args": {"connect_timeout": DATABASE_TIMEOUT_S}, "pool_pre_ping": True}
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
    except SQLAlchemyError as error:
        raise UserError(f"--storage {hide_password(url)}: the database does not answer ({_database_message(error)})") from None
    try:
        yield storage
    except (StorageInternalError, SQLAlchemyError) as error:
        raise StoreError(f"the search's database {hide_password(url)} failed: {_database_message(error)}") from error
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _database_message(error: BaseException) -> str:
    """Return the first line of the database's own message."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return str(getattr(cause, "orig", cause)).splitlines()[0]


def study_exists(name: str, url: str) -> bool:
    """Return whether a database has the study of that name. Creates no file."""
    parts = make_url(url)
    if parts.drivername.startswith("sqlite") and not Path(parts.database or "").exists():
        return False
    with open_storage(url) as storage:
        return name in optuna.study.get_all_study_names(storage)


def open_study(name: str, storage: BaseStorage, search: SearchConfig, space: SearchSpace) -> optuna.Study:
    """Open the Optuna study of that name, or create it."""
    directions = [StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE for mode in search.modes]
    study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    if study.metric_names != search.objectives:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            study.set_metric_names(search.objectives)  # which dashboards show
    # The seed depends on the number of trials, so that a resumed search does not draw its first points again.
    study.sampler = build_sampler(search, space, search.sampler_seed + len(get_trials(study)))
    return study


def get_trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    """Return the trials in these states, or all. They are not copied, and must not be changed."""
    return study.get_trials(deepcopy=False, states=states or None)


def changed_parameter(study: optuna.Study, space: SearchSpace) -> str | None:
    """Return the first parameter whose type or choices differ from those of the trials so far. Ranges may change."""
    for trial in get_trials(study):
        for path, distribution in trial.distributions.items():
            if path in space.parameters and _type_and_choices(distribution) != _type_and_choices(space.parameters[path]):
                return path
    return None


def _type_and_choices(parameter: Any) -> tuple[str, tuple]:
    """Return them for a parameter of a search space or for an Optuna distribution."""
    name = getattr(parameter, "type", type(parameter).__name__.removesuffix("Distribution").lower())
    return name, getattr(parameter, "labels", getattr(parameter, "choices", ()))


def in_space(trial: FrozenTrial, space: SearchSpace) -> bool:
    """Whether the trial's point is one of the space, which may have changed since the trial."""
    return space.point_of(trial_point(trial)) == trial_point(trial)


def ended_outside(study: optuna.Study, space: SearchSpace) -> list[FrozenTrial]:
    """Return the trials that ended with a result or a cause and whose points are outside the space."""
    return [t for t in get_trials(study) if (t.state in FINISHED_STATES or "cause" in t.user_attrs) and not in_space(t, space)]


def restricted(study: optuna.Study, space: SearchSpace) -> optuna.Study:
    """Return a copy of the study in memory in which the trials outside the space have failed. Trials keep their numbers."""
    copy = optuna.create_study(directions=study.directions)
    copy.add_trials([t if in_space(t, space) else create_trial(state=TrialState.FAIL) for t in get_trials(study)])
    return copy


def start_trial(study: optuna.Study, space: SearchSpace) -> optuna.Trial:
    """Start the next trial. Drops the trials of the queue that were enqueued for another space."""
    while True:
        trial = study.ask()
        if _fits(get_trials(study)[trial.number], space):
            return trial
        study.tell(trial, state=TrialState.FAIL)


def waiting_trials(study: optuna.Study, space: SearchSpace) -> list[FrozenTrial]:
    """Return the trials of the queue that `start_trial` will start."""
    return [trial for trial in get_trials(study, TrialState.WAITING) if _fits(trial, space)]


def _fits(trial: FrozenTrial, space: SearchSpace) -> bool:
    """Whether the values that were enqueued for a trial are values of the space; those of a killed trial may be incomplete."""
    point = trial_point(trial)
    return all(path in space.parameters and space.parameters[path].contains(value) for path, value in point.items())


def requeue_interrupted(study: optuna.Study) -> None:
    """Mark the running trials of a launch that died as failed, and enqueue their points again."""
    for trial in get_trials(study, TrialState.RUNNING):
        study.tell(trial.number, state=TrialState.FAIL)
        if point := trial_point(trial):
            enqueue_point(study, point, repeats=trial.number)


def trial_point(trial: FrozenTrial) -> Point:
    """Return the point of a trial, including enqueued parameters that it has not drawn yet."""
    return _decoded(trial.system_attrs.get("fixed_params", {}) | trial.params)


def drawn_point(trial: FrozenTrial) -> Point:
    """Return the point of a trial as far as it has been drawn."""
    return _decoded(trial.params)


def _decoded(params: Mapping[str, Any]) -> Point:
    return {path: from_optuna(value) for path, value in params.items()}


def optuna_params(point: Point) -> dict[str, Any]:
    """Return a point as the parameters of a trial."""
    return {path: to_optuna(value) for path, value in point.items()}


def enqueue_point(study: optuna.Study, point: Point, **user_attrs: Any) -> None:
    """Enqueue the point of a next trial."""
    study.enqueue_trial(optuna_params(point), user_attrs=user_attrs)


def budget_used(study: optuna.Study) -> int:
    """Return the number of trials that count against the budget: finished ones, and failed ones with a cause.

    Interrupted trials have no cause; they are repeated. Warm-start trials do not count. Pass the `restricted` study to leave
    out the trials of another space.
    """
    return sum(
        (trial.state in FINISHED_STATES or "cause" in trial.user_attrs) and "warm" not in trial.user_attrs
        for trial in get_trials(study)
    )


def remaining_points(study: optuna.Study, grid: list[Point]) -> list[Point]:
    """Return the points of a grid that have neither a trial nor a place in the queue."""
    taken_states = (*FINISHED_STATES, TrialState.WAITING)
    taken = [trial_point(t) for t in get_trials(study) if t.state in taken_states or "cause" in t.user_attrs]
    return [point for point in grid if point not in taken]


def finish_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    result: dict[str, Any],
    objectives: list[str],
    constraints: Sequence[Constraint] = (),
) -> None:
    """Record in Optuna how a trial ended. A result without a state is that of a trial which the scheduler stopped."""
    for name in ("run_id", "run_ids", "epoch"):
        if name in result:
            trial.set_user_attr(name, result[name])
    if "by_seed" in result:
        trial.set_user_attr("by_seed", dict(zip(objectives, result["by_seed"], strict=True)))
    if "state" in result:
        for name, violation in violations(constraints, result).items():
            trial.set_constraint(name, violation)
    if result.get("state") not in (None, "done"):
        trial.set_user_attr("cause", result.get("cause") or result["state"])
    if result.get("state") in ("done", INFEASIBLE) and "by_seed" in result:
        study.tell(trial, [result[name] for name in objectives])
    elif result.get("state") == INFEASIBLE:
        study.tell(trial, state=TrialState.PRUNED)
    elif "state" in result:
        study.tell(trial, state=TrialState.FAIL)
    else:
        if result["epoch"] not in get_trials(study)[trial.number].intermediate_values:
            report_value(trial, result, objectives)
        study.tell(trial, state=TrialState.PRUNED)


def report_value(trial: optuna.Trial, result: dict[str, Any], objectives: list[str]) -> None:
    """Record an intermediate value, from which samplers learn about pruned trials. Optuna has none for several objectives."""
    if len(objectives) == 1 and objectives[0] in result:
        trial.report(result[objectives[0]], result["epoch"])


def violations(constraints: Sequence[Constraint], values: Mapping[str, Any]) -> dict[str, float]:
    """Return how far values violate each constraint on one of them; at most 0 for one that they keep."""
    return {str(c): c.violation(values[c.name]) for c in constraints if c.name in values}


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether a trial violates a constraint."""
    return any(violation > 0 for violation in trial.constraints.values())
