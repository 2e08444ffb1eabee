"""The JSON schemas that are shipped, for editors that complete YAML."""

import json

import pytest
import yaml
from support.paths import ROOT

SCHEMAS = {
    "run": ("ablations/runs/run.schema.json", "ablations/runs/*.yaml"),
    "study": ("ablations/studies/study.schema.json", "ablations/studies/*.yaml"),
    "space": ("search_spaces/space.schema.json", "search_spaces/*.yaml"),
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_shipped_schema_is_what_the_command_prints(tiekd, kind):
    """`tiekd config schema KIND > FILE` renews it."""
    assert tiekd("config", "schema", kind).out == (ROOT / SCHEMAS[kind][0]).read_text()


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_packaged_document_names_its_schema_and_only_settings_of_it(kind):
    path, pattern = SCHEMAS[kind]
    known = json.loads((ROOT / path).read_text())["properties"]
    documents = sorted(ROOT.glob(pattern))
    assert documents
    for document in documents:
        assert f"# yaml-language-server: $schema={(ROOT / path).name}\n" in document.read_text()
        assert yaml.safe_load(document.read_text()).keys() <= known.keys()
