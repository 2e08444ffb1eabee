"""Progress on terminals of several sizes, as lines, and as JSON lines."""

import io
import json

import pytest

from ablations.monitor.reporters import SUMMARY_EVERY_S, JsonReporter, LineReporter, LiveReporter
from ablations.monitor.study_progress import CellProgress, StudyProgress
from ablations.monitor.terminal import ProgressDisplay, duration, summary_line
from tiekd.cli.console import PlainConsole

NOW = 1_000_000.0
FAILED = CellProgress(
    "loss=mse, seed=0", "c1", "failed", 3, 9, cause="OSError: [/disk] is full", log="/store/runs/c1/error.txt"
)

LOST = CellProgress("loss=mse, seed=1", "e1", "waiting", 3, 9, metrics={"abs_rel": 0.4}, cause="its node was lost")


@pytest.fixture
def progress():
    return StudyProgress(
        "demo",
        [
            CellProgress(
                "loss=si, seed=0", "a1", state="done", epoch=9, epochs=9, device_seconds=90.0, metrics={"abs_rel": 0.25}
            ),
            CellProgress(
                "loss=si, seed=1", "b1", state="running", epoch=4, epochs=9, device_seconds=40.0, last_update=NOW, host="n1"
            ),
            FAILED,
            CellProgress("loss=tie_kd, seed=0", "d1", epochs=9),
        ],
        slots=1,
    )


def drawn(progress, width, height=24, now=NOW):
    console = PlainConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height)
    console.print(ProgressDisplay(progress, now))
    return console.file.getvalue().rstrip("\n")


def test_wide_terminal_shows_counts_best_bar_and_running_cells(progress):
    head, bar, cell = drawn(progress, 120).splitlines()
    assert head.rstrip() == "demo  4 cells  1 done  1 running  1 waiting  1 failed  best abs_rel 0.2500: loss=si, seed=0"
    assert bar.startswith("━━━")
    assert bar.rstrip().endswith("16/30 epochs  left 0:02:20  0.04 device-hours")
    assert cell.split() == ["4/9", "loss=si,", "seed=1"]


@pytest.mark.parametrize("width", [20, 30, 50, 80, 200])
def test_no_line_is_wider_than_the_terminal(progress, width):
    progress.cells[1].name = "a name that is longer than any of these terminals " * 5
    lines = drawn(progress, width).splitlines()
    assert max(map(len, lines)) <= width
    assert "4/9" in lines[-1]  # the name is cut off


def test_low_terminal_shows_some_running_cells(progress):
    progress.cells += [CellProgress(f"cell {i}", state="running", epochs=9, last_update=NOW) for i in range(20)]
    lines = drawn(progress, 100, height=12).splitlines()
    assert lines[-1] == "  and 17 more"
    assert len(lines) == 2 + 4 + 1


def test_hosts_are_shown_if_there_are_several(progress):
    assert "on n1" not in drawn(progress, 100)
    progress.cells[3] = CellProgress("loss=mse, seed=1", state="running", epochs=9, last_update=NOW, host="n2")
    assert ["on n1" in drawn(progress, 100), "on n2" in drawn(progress, 100)] == [True, True]


def test_stale_cells_are_marked(progress):
    assert "last update" not in drawn(progress, 100, now=NOW + 30)
    assert drawn(progress, 100, now=NOW + 90).splitlines()[-1].endswith("last update 0:01:30 ago")
    assert drawn(progress, 100, now=NOW + 900).splitlines()[-1].endswith("last update 0:15:00 ago  no heartbeat")
    progress.cells[1].alive = False
    assert drawn(progress, 100).splitlines()[-1].endswith("process exited")


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (0.4, "0:00:00"), (3723.0, "1:02:03"), (360000.0, "100:00:00")]
)
def test_durations_are_hours_minutes_seconds(seconds, text):
    assert duration(seconds) == text


def test_line_reporter_prints_ended_cells_and_a_summary_after_silence(progress):
    console, clock = PlainConsole(file=io.StringIO(), width=200), [NOW]
    lines = LineReporter(progress, console, lambda: clock[0])
    lines.report("started", progress.cells[1], {})
    lines.report("epoch", progress.cells[1], {"abs_rel": 0.3})
    lines.report("finished", progress.cells[0], {"abs_rel": 0.25})
    lines.report("failed", FAILED, {})
    lines.report("lost", LOST, {})
    lines.message("waiting for nodes [2]")
    for passed in (1.0, SUMMARY_EVERY_S, 1.0, SUMMARY_EVERY_S - 2.0):
        clock[0] += passed
        lines.tick()
    done, failed, lost, note, beat = console.file.getvalue().splitlines()
    assert done == "done      loss=si, seed=0  abs_rel 0.2500"
    assert failed == "failed    loss=mse, seed=0  OSError: [/disk] is full  log /store/runs/c1/error.txt"
    assert lost == "waiting   loss=mse, seed=1  its node was lost"
    assert note == "waiting for nodes [2]"
    assert beat == summary_line(progress, NOW + 1.0 + SUMMARY_EVERY_S)
    assert beat.startswith("1 done, 1 running, 1 waiting, 1 failed; 16/30 epochs  left ")


def test_events_are_json_lines(progress, capsys):
    lines = JsonReporter(progress)
    lines.report("epoch", progress.cells[1], {"abs_rel": 0.3, "loss": float("nan")})
    lines.report("failed", FAILED, {})
    lines.message("waiting for nodes")
    epoch, failed, note = map(json.loads, capsys.readouterr().out.splitlines())
    assert (epoch["event"], epoch["run_id"], epoch["cell"], epoch["state"]) == ("epoch", "b1", "loss=si, seed=1", "running")
    assert (epoch["epoch"], epoch["epochs"], epoch["metrics"]) == (4, 9, {"abs_rel": 0.3})  # NaN is not valid JSON
    assert (epoch["done"], epoch["total"]) == (1, 4)
    assert epoch["device_hours"] == pytest.approx(130 / 3600)
    assert failed["cause"] == "OSError: [/disk] is full"
    assert failed["log"] == "/store/runs/c1/error.txt"
    assert failed["eta_seconds"] > 0
    assert (note["event"], note["words"]) == ("note", "waiting for nodes")


def test_live_display_restores_the_cursor_and_keeps_the_lines(progress):
    console = PlainConsole(file=io.StringIO(), force_terminal=True, width=80)
    screen = LiveReporter(progress, console)
    screen.report("epoch", progress.cells[1], {})
    screen.report("finished", progress.cells[0], {})
    screen.message("waiting for nodes [2]")
    screen.close()
    written = console.file.getvalue()
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert written.index(hide) < written.index(show)
    assert written.count("loss=si, seed=0  abs_rel 0.2500\n") == 1
    assert written.count("waiting for nodes [2]\n") == 1


def test_narrow_terminal_breaks_lines_between_counts(progress):
    lines = drawn(progress, 32).splitlines()
    assert [line.rstrip() for line in lines[:3]] == [
        "demo  4 cells  1 done  1 running",
        "1 waiting  1 failed",
        "best abs_rel 0.2500: loss=si, s…",
    ]
