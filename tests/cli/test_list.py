"""`tiekd list`, `tiekd config`, `tiekd --version` and hints at what was meant."""

import json
from importlib.metadata import version

import pytest
import yaml

from tiekd.config.specs import LOSSES

KINDS = [
    *("alignments", "datasets", "dpms", "losses", "protocols", "quirks", "runs", "spaces", "students", "studies"),
    "teachers",
]


def test_version_and_help(tiekd):
    assert tiekd("--version").out == f"tiekd {version('tiekd')}\n"
    assert tiekd("-h").out == tiekd("--help").out
    assert tiekd("run", "-h").out.startswith("Usage: tiekd run [OPTIONS]")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_names(tiekd, kind):
    assert kind in json.loads(tiekd("list", "--json").out)
    found = json.loads(tiekd("list", kind, "--json").out)
    assert found
    assert [line.split()[0] for line in tiekd("list", kind).out.splitlines()] == list(found)


def test_losses_are_listed_with_their_labels(tiekd):
    assert json.loads(tiekd("list", "losses", "--json").out) == {name: spec.label for name, spec in LOSSES.items()}


def test_an_unknown_kind_is_refused(mistake):
    assert "kind: unknown 'loses'; did you mean losses or" in mistake("list", "loses")


def test_a_config_is_shown_with_everything_filled_in(tiekd, in_folder):
    """By the name of a packaged run, from a folder that is no checkout."""
    shown = yaml.safe_load(tiekd("config", "show", "debug", "--set", "loss.sigma=0.8").out)
    assert shown["loss"]["sigma"] == 0.8
    assert shown["optim"]["div_factor"] == 25.0
    again = in_folder / "again.yaml"
    again.write_text(yaml.safe_dump(shown))
    assert json.loads(tiekd("config", "show", again, "--json").out) == shown


@pytest.mark.parametrize("kind", ["run", "study", "space"])
def test_a_document_has_a_schema(tiekd, kind):
    schema = json.loads(tiekd("config", "schema", kind).out)
    assert schema["type"] == "object"
    assert schema["description"]


def test_the_schema_of_a_run_lists_the_names_of_losses(tiekd):
    schema = json.loads(tiekd("config", "schema").out)
    assert schema["$defs"]["LossConfig"]["properties"]["name"]["anyOf"][0]["enum"] == sorted(LOSSES)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run", "Missing argument 'CONFIG'"),
        ("run debug loss.sigma=0.8", "did you mean --set loss.sigma=0.8?"),
        ("run loss.sigma=0.8", "got the setting loss.sigma=0.8; name the config first, then --set loss.sigma=0.8"),
        ("run debugg", "run config: unknown 'debugg'; did you mean debug? valid: debug, teacher; or the path of a YAML file"),
        ("list losses students", "unexpected extra argument"),
        ("lst", "No such command 'lst'"),
    ],
)
def test_a_hint_at_what_was_meant(mistake, command, message):
    assert message in mistake(*command.split())


def test_a_study_is_no_run(mistake, as_yaml, in_folder, tiny):
    study = as_yaml(in_folder / "study.yaml", {"name": "demo", "base": tiny})
    assert "study.yaml: is a study; run it with `tiekd ablate`" in mistake("run", study)
