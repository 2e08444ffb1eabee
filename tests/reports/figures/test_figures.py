"""Every entry of FIGURES is drawn and written with its data, and a new figure needs one entry."""

from dataclasses import replace

import matplotlib.image
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.made_store import EPOCHS, metrics_of

from reports.figures.figures import FIGURES, OUTLIERS, DrawnFigures, ReportFigure, figures_of
from reports.figures.learning_curves import MAX_CURVES
from reports.figures.seed_dots import MAX_CELLS
from reports.figures.spec import FigureData, FigureSpec
from reports.figures.style import COLUMN_WIDTH, PAGE_WIDTH, SMALLEST_TEXT

# -- contract of every entry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", FIGURES)
def test_entry_is_written_as_png_svg_pdf_and_csv(examples, entry):
    example = examples[entry]
    image = matplotlib.image.imread(example.png)
    assert min(image.shape[:2]) > 200
    assert image[..., :3].std() > 0.01  # not blank
    assert example.svg.read_text().rstrip().endswith("</svg>")
    assert example.pdf.read_bytes().startswith(b"%PDF")
    frame = example.figure.data
    assert (list(example.data.columns), len(example.data)) == (list(frame.columns), len(frame))
    assert len(frame) > 0


@pytest.mark.parametrize("entry", FIGURES)
def test_entry_has_a_caption_that_names_its_factors(examples, entry):
    figure = examples[entry].figure
    assert figure.caption.endswith(".")
    assert not {"{", "}"} & set(figure.caption)
    for factor in {"sensitivity": ["loss.temperature"], "heatmap": ["loss.temperature", "bins.n_bins"]}.get(entry, []):
        assert factor in figure.caption
        assert factor.replace(".", "-") in figure.name


@pytest.mark.parametrize("entry", FIGURES)
def test_entry_has_a_printed_width_and_readable_text(examples, entry):
    drawing = examples[entry].drawing
    assert drawing.get_figwidth() in (COLUMN_WIDTH, PAGE_WIDTH)
    texts = [text for text in drawing.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= SMALLEST_TEXT


@pytest.mark.parametrize("entry", FIGURES)
def test_nothing_is_cut_off(examples, entry):
    assert min(examples[entry].margins) >= -0.02


def test_studies_and_searches_get_their_own_figures(illustrated, tables):
    names = {name: {figure.name for figure in figures_of(table, illustrated, name)} for name, table in tables.items()}
    assert names["demo"] == {"demo-curves", "demo-seeds", "demo-effects", "demo-loss-temperature"}
    assert names["grid"] == {f"grid-{name}" for name in ("curves", "seeds", "effects", "costs")} | {
        "grid-loss-temperature",
        "grid-bins-n_bins",
        "grid-loss-temperature-bins-n_bins",
    }
    assert names["hunt"] == {"hunt-importance", "hunt-trials"}


# -- a new figure -----------------------------------------------------------------------------------------------------------


def toy_data(table, frames):
    return [
        FigureData(frames.runs.loc[frames.runs["study"] == table.study.name, ["seed", "abs_rel"]], remark=" With a remark.")
    ]


def draw_toy(data: pd.DataFrame) -> Figure:
    figure = Figure()
    figure.subplots().plot(data["seed"], data["abs_rel"], "o")
    return figure


def test_new_figure_appears_in_the_report_by_one_entry(made, tiekd, tmp_path, monkeypatch):
    monkeypatch.setitem(FIGURES, "toy", FigureSpec("study", "A toy figure.", toy_data, draw_toy))
    outcome = tiekd("report", made.uri, "--out", tmp_path / "report")
    assert outcome.code == 0, outcome.err
    (svg,) = (tmp_path / "report/figures").glob("*-toy.svg")
    assert svg.with_suffix(".png").stat().st_size > 0
    assert list(pd.read_csv(svg.with_suffix(".csv")).columns) == ["seed", "abs_rel"]
    for page in ("report.md", "report.html"):
        assert "A toy figure. With a remark." in (tmp_path / "report" / page).read_text()


def test_figures_are_drawn_again_only_if_their_data_have_changed(tmp_path):
    drawn = []

    def draw(data: pd.DataFrame) -> Figure:
        drawn.append(data["abs_rel"].iloc[0])
        return draw_toy(data)

    figures, out, partial = DrawnFigures(tmp_path / "out"), tmp_path / "out", tmp_path / "partial"
    for value in (1.0, 1.0, 2.0):
        files = figures.save(ReportFigure("toy", "A toy.", pd.DataFrame({"seed": [0], "abs_rel": [value]}), draw), partial)
        assert [file.suffix for file in files] == [".png", ".svg", ".pdf", ".csv"]
        assert str(value) in files[3].read_text()
        out.mkdir(exist_ok=True)
        for file in files:
            file.replace(out / file.name)
    assert drawn == [1.0, 2.0]


# -- data -------------------------------------------------------------------------------------------------------------------


def test_seeds_without_a_result_are_listed_without_a_value(examples):
    data = examples["seeds"].data
    assert len(data) == 18
    assert data.loc[data["state"] != "done", "abs_rel"].isna().all()
    row = data[(data["cell"] == "AdaBins · Res-KD · SSIM, SI · MobileNetV2") & (data["seed"] == 1)].iloc[0]
    assert row["abs_rel"] == pytest.approx(metrics_of(3, 1)["abs_rel"])
    assert row["published"] == 0.0701


def test_curves_are_mean_and_range_over_seeds(examples):
    data = examples["curves"].data
    assert sorted(data["epoch"].unique()) == [2, EPOCHS]  # the first epoch was not validated
    row = data[(data["series"] == "Res-KD · SSIM, SI") & (data["epoch"] == EPOCHS)].iloc[0]
    low, high = metrics_of(3, 0)["abs_rel"], metrics_of(3, 1)["abs_rel"]
    assert (row["low"], row["high"], row["mean"], row["n_seeds"]) == pytest.approx((low, high, (low + high) / 2, 2))


def test_curves_of_runs_with_different_numbers_of_epochs_are_drawn_by_steps(tables, illustrated):
    """A run of a tenth of the frames, and ten times as many epochs, takes as many steps."""
    table = tables["demo"]
    few = [*table.cells[0].done_ids.values()]
    epochs = illustrated.epochs.copy()
    epochs.loc[epochs["run_id"].isin(few), "epoch"] *= 10
    by_name = {figure.name: figure for figure in figures_of(table, replace(illustrated, epochs=epochs), "few")}
    data = by_name["few-curves"].data
    assert "epoch" not in data
    assert sorted(data["step"].unique()) == [20, 10 * EPOCHS]


def test_only_the_best_of_many_cells_are_drawn(tables, illustrated):
    table = tables["demo"]
    many = replace(table, cells=table.cells * (MAX_CELLS // len(table.cells) + 2))
    by_name = {figure.name: figure for figure in figures_of(many, illustrated, "many")}
    curves, seeds = by_name["many-curves"], by_name["many-seeds"]
    assert len(seeds.data["cell"].unique()) < len(table.cells)  # the worst cells are left out
    assert f"best {MAX_CURVES} of {len(many.cells)} cells" in curves.caption


def test_importance_is_read_from_the_search(examples):
    assert examples["importance"].csv.read_text().splitlines() == ["parameter,share", "loss.temperature,0.8", "loss.sigma,0.2"]


def test_pruned_trials_are_drawn_hollow_at_their_last_value(examples):
    example = examples["trials"]
    data = example.figure.data
    pruned = data[(data["state"] == "pruned") & (data["factor"] == "loss.sigma")]
    assert (pruned["value"].tolist(), pruned["abs_rel"].tolist()) == ([0.3], pytest.approx([metrics_of(3, 0)["abs_rel"]]))
    (hollow,) = (line for line in example.drawing.axes[1].lines if line.get_markerfacecolor() == "none")
    assert list(hollow.get_xdata()) == [0.3]


def test_a_caption_tells_about_outliers_only_if_there_are_any(examples):
    assert not any(example.figure.caption.endswith(OUTLIERS) for example in examples.values())
