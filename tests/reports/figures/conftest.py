"""A store with data for every entry of FIGURES, and an example of each entry, drawn and written once."""

from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure
from support.made_store import BASE, CELLS, LOST, MISSING, fill, write_costs

from reports.figures.figures import FIGURES, ReportFigure, figures_of, save_figure
from reports.figures.style import RC_PARAMS
from reports.loading.collect import StoreFrames, collect
from reports.tables.table import Table, build_tables
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

GRID = [{"loss.temperature": t, "bins.n_bins": n} for t in (0.5, 1.0) for n in (64, 128, 256)]
SEARCH = [
    {"loss.temperature": t, "loss.sigma": s, "bins.spacing": b}
    for t, s, b in ((0.5, 0.1, "log"), (1.5, 0.4, "uniform"), (2.0, 0.2, "log"), (1.0, 0.3, "log"))
]
PRUNED = {(3, 0): Status("missing", "pruned by the scheduler after epoch 3 of 9")}


@dataclass(frozen=True)
class Example:
    """A figure as it was drawn, and its files."""

    figure: ReportFigure
    drawing: Figure
    margins: tuple[float, float]  # inches between the drawing and the edges of the paper, the smallest of each axis
    png: Path
    svg: Path
    pdf: Path
    csv: Path

    @property
    def data(self) -> pd.DataFrame:
        """The data as written."""
        return pd.read_csv(self.csv)


@pytest.fixture(scope="session")
def illustrated(tmp_path_factory: pytest.TempPathFactory) -> StoreFrames:
    """The made study, a grid over networks that were measured, and a search."""
    store = RunStore(tmp_path_factory.mktemp("illustrated") / "store")
    fill(store, CELLS, 2, {"name": "demo", "title": "Demo study"}, LOST, MISSING)
    fill(store, GRID, 2, {"name": "grid", "base": BASE})
    write_costs(store, GRID[:3], [200, 300, 400])
    fill(store, SEARCH, 1, {"name": "hunt", "kind": "search"}, PRUNED)
    store.write_json("studies/hunt/findings.json", {"importance": {"loss.sigma": 0.2, "loss.temperature": 0.8}})
    return collect(store)


@pytest.fixture(scope="session")
def tables(illustrated: StoreFrames) -> dict[str, Table]:
    """The tables of these studies by name."""
    return {table.study.name: table for table in build_tables(illustrated)}


@pytest.fixture(scope="session")
def examples(
    illustrated: StoreFrames, tables: dict[str, Table], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Example]:
    """The first figure of each entry of FIGURES."""
    folder = tmp_path_factory.mktemp("figures")
    figures = [figure for name, table in tables.items() for figure in figures_of(table, illustrated, name)]
    examples = {}
    for entry, spec in FIGURES.items():
        figure = next(figure for figure in figures if figure.draw is spec.draw)
        with matplotlib.rc_context(RC_PARAMS):
            drawing = figure.draw(figure.data)
            drawing.draw_without_rendering()
            used, paper = drawing.get_tightbbox(), drawing.bbox_inches
        margins = (min(used.x0, paper.x1 - used.x1), min(used.y0, paper.y1 - used.y1))
        files = save_figure(replace(figure, draw=lambda data, drawing=drawing: drawing), folder)
        examples[entry] = Example(figure, drawing, margins, *files)
    return examples
