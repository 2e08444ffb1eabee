"""A served report follows its store."""

import signal
import subprocess
import sys

import pytest
from support.made_store import BASE, fill, write_run

from reports.pages.live import digest
from tiekd.config import build
from tiekd.config.documents import with_values
from tiekd.store.run_status import Status

pytestmark = pytest.mark.slow


@pytest.fixture
def small(store):
    """A study with one finished run of two."""
    fill(store, [{"loss.name": "ssim"}, {"loss.name": "mse"}], 1, {"name": "small"}, missing=(1, 0))
    return store


def finish(store) -> str:
    """Compute the other run of the study."""
    return write_run(store, build(with_values(BASE, {"loss.name": "mse", "seed": 0})), Status("done"), 1)


def test_digest_changes_when_runs_begin_and_end(small):
    found = [digest([small])]
    run_id = finish(small)
    found.append(digest([small]))
    small.run(run_id).write_status(Status("running", epoch=1))
    found.append(digest([small]))
    small.run(run_id).write_status(Status("running", epoch=2))
    assert digest([small]) == found[-1]
    small.write_json("studies/small/findings.json", {"importance": {}})
    found.append(digest([small]))
    assert len(set(found)) == len(found)


def test_an_open_page_shows_a_run_that_ends_and_keeps_what_was_chosen(small, chromium, tmp_path):
    command = [sys.executable, "-m", "tiekd", "report", small.uri, "--out", str(tmp_path / "out"), "--serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = next(line.strip() for line in server.stdout if line.startswith("http"))
        assert address.startswith("http://127.0.0.1:")
        errors, tab = [], chromium.new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(address)
        main = tab.locator("h2[id] ~ .table").first
        tab.locator("h2[id] ~ .tools summary").first.click()
        tab.locator("h2[id] ~ .tools label", has_text="SILog").first.click()
        main.locator("th button", has_text="Abs Rel").first.click()
        (seeds,) = (tmp_path / "out/figures").glob("*-seeds.csv")
        run_id = finish(small)
        assert f"{run_id},0,missing," in seeds.read_text()
        tab.wait_for_function("document.querySelector('.table td:nth-child(2)').textContent === '2'", timeout=120_000)
        assert main.locator("th[aria-sort=ascending]").all_text_contents() == ["Abs Rel"]
        assert main.locator("th", has_text="SILog").is_visible()
        assert f"{run_id},0,done," in seeds.read_text()
        assert errors == []
        tab.close()
    finally:
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=240)
    assert server.returncode == 0, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--published", "--serve"], "--serve requires STORE"),
        (["STORE", "--serve", "--viewer", "viewer"], "--serve cannot be used with --viewer"),
    ],
)
def test_mistakes_are_one_line(small, tiekd, tmp_path, arguments, message):
    words = [small.uri if word == "STORE" else word for word in arguments]
    outcome = tiekd("report", *words, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "out").exists()
