"""Progress of commands over many frames, on stderr."""

import logging

import pytest

from tiekd.data import progress
from tiekd.data.progress import track


@pytest.fixture
def lines_at_once(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)


def test_items_pass_and_a_log_gets_lines_with_rate_and_time_left(lines_at_once, capsys):
    assert list(track(["a", "b", "c"], "depth maps")) == ["a", "b", "c"]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("depth maps: 2 of 3, ")
    assert first.endswith(" s left")
    assert second.startswith("depth maps: 3 of 3, ")
    assert second.endswith("/s, 0 s left")


def test_items_of_unknown_number_are_counted(lines_at_once, capsys):
    assert list(track(iter("abc"), "images")) == ["a", "b", "c"]
    assert [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()] == ["images: 2", "images: 3"]


def test_a_short_command_prints_no_line_into_a_log(capsys):
    assert list(track(range(3), "images")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    assert list(track(range(3), "images")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "images" in err
    assert "3/3" in err


def test_quiet_shows_nothing(lines_at_once, monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger("tiekd"), "level", logging.ERROR)
    assert list(track(range(3), "images")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_label_does_not_steer_the_terminal(lines_at_once, monkeypatch, capsys, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    list(track(range(3), "run \x1b]0;owned\x07"))
    err = capsys.readouterr().err
    assert r"\u001b]0;owned\u0007" in err
    assert [steering for steering in ("\x1b]", "\x07") if steering in err] == []
