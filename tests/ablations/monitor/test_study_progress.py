import pytest

from ablations.monitor.study_progress import STALE_S, CellProgress, StudyProgress

NOW = 1_000_000.0


def running(name, epoch, epochs, seconds, last_update=NOW, **more):
    """A running cell whose epochs took `seconds` each."""
    return CellProgress(
        name, name, state="running", epoch=epoch, epochs=epochs, device_seconds=epoch * seconds, last_update=last_update, **more
    )


def waiting(epochs):
    return CellProgress(epochs=epochs)


def done(name, seconds=0.0, **metrics):
    return CellProgress(name, name, state="done", epoch=4, epochs=4, device_seconds=4 * seconds, metrics=metrics)


def test_cells_are_counted_by_state():
    progress = StudyProgress("demo", [done("a"), done("b"), running("c", 1, 4, 1.0), waiting(4), CellProgress(state="failed")])
    assert progress.counts == {"done": 2, "running": 1, "waiting": 1, "failed": 1}


def test_epochs_of_ended_cells_are_not_counted_as_left():
    ended = (
        CellProgress(state="pruned", epoch=2, epochs=9),
        CellProgress(state="failed", epoch=1, epochs=9),
        CellProgress(state="missing"),
    )
    assert StudyProgress("demo", [done("a"), running("b", 1, 4, 1.0), waiting(5), *ended]).epochs == (4 + 1 + 2 + 1, 8 + 3 + 5)


@pytest.mark.parametrize(
    ("cells", "slots", "seconds"),
    [
        ([running("a", 2, 10, 3.0)], 1, 24.0),
        ([running("a", 2, 10, 3.0), running("b", 9, 10, 3.0)], 2, 24.0),
        ([running("a", 2, 10, 3.0), waiting(10)], 1, 24.0 + 30.0),
        ([running("a", 2, 10, 3.0), waiting(10)], 2, 30.0),  # a slot is free
        ([running("a", 2, 10, 3.0), running("b", 9, 10, 3.0), waiting(4), waiting(4)], 2, 3.0 + 12.0 + 12.0),
        ([running("a", 1, 2, 10.0), running("b", 1, 2, 2.0), waiting(3)], 2, 2.0 + 3 * 6.0),  # new cells cost the mean
        ([done("a", 5.0), waiting(2)], 1, 10.0),
        ([running("a", 4, 8, 6.0, workers=2)], 1, 4 * 3.0),  # device seconds are of both workers
        ([done("a", 5.0)], 2, 0.0),
    ],
)
def test_eta_fills_the_slots(cells, slots, seconds):
    assert StudyProgress("demo", cells, slots=slots).eta_seconds(NOW) == pytest.approx(seconds)


def test_eta_counts_down_within_an_epoch_and_stops_when_it_is_overdue():
    progress = StudyProgress("demo", [running("a", 2, 10, 3.0, last_update=NOW)], slots=1)
    assert [progress.eta_seconds(NOW + passed) for passed in (0, 1, 3, 60)] == pytest.approx([24, 23, 21, 21])


def test_eta_is_unknown_before_an_epoch_and_while_nothing_runs():
    assert StudyProgress("demo", [running("a", 0, 9, 0.0)]).eta_seconds(NOW) is None
    assert StudyProgress("demo", [done("a", 5.0), waiting(4)]).eta_seconds(NOW) is None


def test_best_cell_is_finished_and_deltas_are_maximized():
    cells = [done("a", abs_rel=0.2, delta1=0.8), done("b", abs_rel=0.1, delta1=0.7), done("c")]
    cells.append(running("d", 1, 2, 1.0, metrics={"abs_rel": 0.01, "delta1": 1.0}))
    assert StudyProgress("demo", cells, "abs_rel").best.name == "b"
    assert StudyProgress("demo", cells, "delta1").best.name == "a"
    assert StudyProgress("demo", cells[2:], "abs_rel").best is None


def test_device_hours_include_all_cells():
    assert StudyProgress("demo", [done("a", 450.0), running("b", 2, 4, 900.0)]).device_hours == 1.0


@pytest.mark.parametrize(
    ("epoch_seconds", "silence", "alive", "stale"),
    [
        (1.0, STALE_S - 1, None, False),
        (1.0, STALE_S + 1, None, True),
        (600.0, STALE_S + 1, None, False),  # within three of its epochs
        (600.0, 1801.0, None, True),
        (600.0, 1801.0, True, True),  # its process exists but makes no progress
        (600.0, 0.0, False, True),
    ],
)
def test_cell_is_stale_by_the_measure_of_its_own_epochs(epoch_seconds, silence, alive, stale):
    cell = running("a", 3, 9, epoch_seconds, last_update=NOW - silence, alive=alive)
    assert (cell in StudyProgress("demo", [cell, done("b", 1.0)]).stale(NOW)) == stale


def test_search_names_its_cells_as_they_start():
    progress = StudyProgress("demo", [CellProgress(epochs=3)])
    first, second = progress.start_cell("sigma=1", {"loss.sigma": 1}, 3), progress.start_cell("sigma=2", {"loss.sigma": 2}, 3)
    assert [c.name for c in progress.cells] == ["sigma=1", "sigma=2"]
    assert (first.epochs, second.factors) == (3, {"loss.sigma": 2})
