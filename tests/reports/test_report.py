"""`reports.load` returns the frames that `tiekd report` writes."""

import pandas as pd
import pytest
from support.made_store import fill

import reports
from reports.cli import report
from tiekd.errors import UserError

FRAMES = ("runs", "epochs", "images", "tables")


@pytest.mark.parametrize("study", [None, "other"])
def test_load_returns_the_frames_of_the_parquet_files(demo, tmp_path, study):
    fill(demo, [{"loss.name": "mse"}, {"loss.name": "si"}], 1, {"name": "other"})
    broken = next(record for record in demo.runs() if record.status().state == "done")
    broken.write_file("images.parquet", b"PAR1, truncated")
    report([demo.uri], tmp_path / "out", study=[study] if study else [])
    loaded = reports.load(demo.uri, study)
    for name in FRAMES:
        getattr(loaded, name).to_parquet(tmp_path / f"{name}.parquet", index=False)
        expected, found = (pd.read_parquet(folder / f"{name}.parquet") for folder in (tmp_path / "out", tmp_path))
        assert len(found)
        pd.testing.assert_frame_equal(found, expected)


def test_images_and_tables_are_made_when_they_are_used(made):
    loaded = reports.load(made.uri)
    assert not {"images", "tables"} & set(vars(loaded))
    assert loaded.tables is loaded.tables


def test_a_mistaken_store_or_study_is_reported_at_once(made, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        reports.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="did you mean demo"):
        reports.load(made.uri, "dmeo")
