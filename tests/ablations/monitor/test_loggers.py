"""A real run logged to TensorBoard files and an MLflow database, by launches that are interrupted and resumed."""

import io
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image
from rich.console import Console
from support.event_files import scalars_in, values_in
from support.runs import compute

from ablations.monitor.loggers import MLflow, RunLogger, TensorBoard
from ablations.monitor.study_progress import CellProgress
from tiekd.config import build
from tiekd.config.documents import flatten, with_values
from tiekd.errors import UserError
from tiekd.store.files import safe_name
from tiekd.store.run_store import RunStore

NAME = "loss.name=[si/x], seed=0"
FOLDER_NAME = safe_name(NAME)  # "loss.name=_si_x_, seed=0" and a digest
EPOCHS = 4
FACTORS = {"loss.name": "si", "optim.lr": 0.1}


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory) -> RunStore:
    """A finished run, validated at every other epoch."""
    store = RunStore(tmp_path_factory.mktemp("logged"))
    compute(build(with_values(tiny, {"optim.epochs": EPOCHS, "evaluation.every": 2})), store)
    return store


@pytest.fixture
def record(store):
    return next(store.runs())


@pytest.fixture
def cell(record):
    return CellProgress(NAME, record.run_id, "running", epochs=EPOCHS, factors=FACTORS)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def launch(record, cell, store, console):
    """Log epochs `first` to `last` as a launch does; the run's last epoch comes with its end."""

    def tell(sink, first: int, last: int) -> None:
        logger = RunLogger(sink, store, console)
        rows = record.read_table("epochs.parquet").to_dict("records")
        logger.report("started", cell, {})
        for row in rows[first - 1 : min(last, EPOCHS - 1)]:
            cell.epoch = row["epoch"]
            logger.report("epoch", cell, row)
        if last == EPOCHS:
            cell.state, cell.epoch, cell.metrics = "done", EPOCHS, record.read_json("summary.json")["metrics"]
            logger.report("finished", cell, cell.metrics)
        logger.close()

    return tell


def tensorboard(study: str, store: RunStore) -> TensorBoard:
    """Return the sink of a study that has been launched."""
    store.write_study(study, {})
    return TensorBoard(study, store)


def expected(record) -> dict[tuple[str, int], float]:
    """Return every number of every epoch, by name and epoch."""
    rows = record.read_table("epochs.parquet").drop(columns="step").to_dict("records")
    return {(n, row["epoch"]): v for row in rows for n, v in row.items() if n != "epoch" and v == v}


def plain(tag: str) -> str:
    return tag.partition("/")[2]


@pytest.mark.parametrize(
    "launches", [[(1, EPOCHS)], [(1, 2), (3, EPOCHS)], [(1, 2), (2, EPOCHS)], [(1, 1), (4, EPOCHS)], [(EPOCHS, EPOCHS)]]
)
def test_tensorboard_has_each_epoch_once_after_interruptions(launches, launch, store, record, request):
    study = request.node.name.partition("[")[2].rstrip("]")
    for first, last in launches:
        launch(tensorboard(study, store), first, last)
    folder = Path(store.uri) / "studies" / study / "tensorboard"
    assert [f.name for f in folder.iterdir()] == [f"{FOLDER_NAME} {record.run_id[:8]}"]
    found = scalars_in(folder)
    assert len(found) == len(expected(record))
    assert {(plain(tag), step): value for tag, step, value in found} == pytest.approx(expected(record), rel=1e-6)
    assert {tag for tag, _, _ in found} >= {"training/loss", "training/lr", "training/part_si", "evaluation/abs_rel"}


def test_tensorboard_has_the_epochs_of_an_interrupted_launch(launch, store):
    launch(tensorboard("interrupted", store), 1, 2)
    found = scalars_in(Path(store.uri) / "studies" / "interrupted")
    assert {step for _, step, _ in found} == {1, 2}


def test_tensorboard_has_hyperparameters_and_predictions_of_a_finished_run(launch, store, record):
    launch(tensorboard("outcome", store), 1, EPOCHS)
    values = list(values_in(Path(store.uri) / "studies" / "outcome"))
    assert {v.tag for v, _ in values} >= {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"}
    (image,) = (v.image for v, _ in values if v.HasField("image"))
    assert image.encoded_image_string == record.read_file("predictions.jpg")
    assert Image.open(io.BytesIO(image.encoded_image_string)).size == (image.width, image.height)


@pytest.fixture
def mlflow_uri(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")  # MLflow's own way to ask SQLAlchemy
def test_mlflow_has_one_run_per_cell_with_its_config_and_each_epoch_once(launch, store, record, mlflow_uri):
    launch(MLflow("demo"), 1, 2)
    launch(MLflow("demo"), 2, EPOCHS)
    client = MlflowClient(mlflow_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    assert (run.info.run_name, run.info.status) == (NAME, "FINISHED")
    assert (run.data.tags["tiekd.run_id"], run.data.tags["tiekd.state"]) == (record.run_id, "done")
    assert run.data.params == {path: str(value) for path, value in flatten(record.config().document()).items()}
    points = [(m.key, m.step, m.value) for name in run.data.metrics for m in client.get_metric_history(run.info.run_id, name)]
    assert len(points) == len(expected(record))
    assert {(name, step): value for name, step, value in points} == pytest.approx(expected(record))


def test_unreachable_mlflow_is_a_users_mistake(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://host")
    with pytest.raises(UserError, match=r"MLFLOW_TRACKING_URI=nowhere://host: cannot connect to MLflow") as caught:
        MLflow("demo")
    assert "\n" not in str(caught.value)


def test_failing_log_prints_one_line_and_does_not_end_the_study(launch, store, console):
    place = Path(store.uri) / "studies" / "blocked"
    place.mkdir(parents=True)
    (place / "tensorboard").write_text("a file where the folder should be")
    launch(TensorBoard("blocked", store), 1, EPOCHS)
    (line,) = console.file.getvalue().splitlines()
    assert line.startswith("logging to TensorBoard stopped, the study continues: ")
