"""The ranks of methods over protocols, and how stable they are, against loops."""

import numpy as np
import pandas as pd
import pytest
from support.made_store import fill

from reports.loading.collect import collect
from reports.loading.protocols import protocol_means
from reports.loading.schema import METRICS
from reports.pages.report_page import make_section, report_markdown, tables_latex
from reports.pages.table_views import extra_views
from reports.render.text_table import entry_text
from reports.tables.image_bootstrap import RESAMPLES, resamples
from reports.tables.ranks import protocol_ranks
from reports.tables.table import build_tables

CELLS = [{"loss.name": name} for name in ("mse", "ssim", "tie_kd")]
SEEDS, GROUPS, IMAGES = 3, 6, 4  # images of each group
OWN, MEDIAN, EMPTY = "adabins-kb-garg", "adabins-kb-garg+median", "none"
rng = np.random.default_rng(0)
# The last cell is best before the alignment, and second by little after it.
LEVEL = {OWN: [0.3, 0.2, 0.1], MEDIAN: [0.11, 0.098, 0.1]}
SCORES = {
    (cell, seed, name): level[cell] + 0.05 * rng.random((GROUPS, IMAGES))
    for name, level in LEVEL.items()
    for cell in range(3)
    for seed in range(SEEDS)
}


def rows_of(cell: int, seed: int, protocol: str) -> pd.DataFrame:
    """Rows of a run's images, with one more without a valid pixel."""
    rows = [
        {"image": f"{group}/{image}", "group": f"drive_{group}", "n_valid": 9, **dict.fromkeys(METRICS, float(score))}
        for (group, image), score in np.ndenumerate(SCORES[cell, seed, protocol])
    ]
    rows.append({"image": "blank", "group": "drive_0", "n_valid": 0, **dict.fromkeys(METRICS, np.nan)})
    return pd.DataFrame(rows).assign(depth_min=1.0, depth_max=9.0)


@pytest.fixture
def scored(store):
    """A store whose runs were scored under one more protocol."""
    planned = fill(store, CELLS, SEEDS, {"name": "demo"})
    for number, plan in enumerate(planned):
        cell, seed = divmod(number, SEEDS)
        record = store.run(plan["run_id"])
        record.write_table("images.parquet", rows_of(cell, seed, OWN))
        record.write_table("protocols.parquet", rows_of(cell, seed, MEDIAN).assign(protocol=MEDIAN))
        record.write_json("summary.json", {**record.summary(), "also": [MEDIAN]})
    return store


def ranks_of(values: np.ndarray) -> list[int]:
    return [1 + sum(other < value for other in values) for value in values]


def test_ranks_and_their_stability(scored):
    (table,) = build_tables(collect(scored))
    (block,) = protocol_ranks(table)
    drawn = resamples(GROUPS)
    for column, name in enumerate((OWN, MEDIAN)):
        scores = np.array([[SCORES[cell, seed, name] for seed in range(SEEDS)] for cell in range(3)])
        rank = ranks_of(scores.mean((1, 2, 3)))
        assert block.rank[:, column].tolist() == rank
        by_seed = [ranks_of(scores[:, seed].mean((1, 2))) for seed in range(SEEDS)]
        assert block.agree[:, column].tolist() == [sum(found[cell] == rank[cell] for found in by_seed) for cell in range(3)]
        assert block.n_seeds[:, column].tolist() == [SEEDS] * 3
        groups = scores.mean((1, 3))
        by_draw = [ranks_of(groups @ weights) for weights in drawn]
        share = [sum(found[cell] == rank[cell] for found in by_draw) / RESAMPLES for cell in range(3)]
        assert block.draws[:, column] == pytest.approx(share)
    assert block.rank.tolist() == [[3, 3], [2, 1], [1, 2]]
    assert 0.5 < block.draws.min() < 1


def test_the_report_shows_who_wins_where(scored):
    found = collect(scored)
    (table,) = build_tables(found)
    (view,) = [view for view in extra_views(table) if view.title == "Who wins where"]
    assert view.content.columns == ["Row", OWN, MEDIAN]
    best = view.content.rows[2][1]
    assert (entry_text(best), best.best) == (f"1 ({SEEDS}/{SEEDS}, 100%)", True)
    assert "The order depends on the protocol; 2 protocols. Rank 1: " in view.notes[1]
    section = make_section(table, "stem", [])
    assert "### Who wins where" in report_markdown(found, [section], [], None)
    assert "Who wins where" in tables_latex([section])
    means = protocol_means(found.protocols).set_index("run_id")
    run_id = table.cells[0].done_ids[1]
    assert means.loc[run_id, "abs_rel"] == pytest.approx(SCORES[0, 1, MEDIAN].mean())
    assert means.loc[run_id, "n_images"] == GROUPS * IMAGES


def test_runs_that_lack_a_protocol_are_told_and_have_no_rank_there(scored):
    first, second, *_ = (plan.run_id for plan in collect(scored).studies["demo"].planned)
    scored.run(first).delete_file("protocols.parquet")
    scored.run(second).write_file("protocols.parquet", b"no table")
    found = collect(scored)
    assert f"runs/{second}/protocols.parquet" in found.damaged
    (table,) = build_tables(found)
    (block,) = protocol_ranks(table)
    assert block.n_seeds.tolist() == [[3, 1]] * 3
    (view,) = [view for view in extra_views(table) if view.title == "Who wins where"]
    assert view.notes[-1].startswith(f"2 of 9 runs were not scored under every protocol, first {min(first, second)}: ")


def test_runs_of_one_protocol_have_no_ranks(store):
    fill(store, CELLS, 1, {"name": "demo"})
    (table,) = build_tables(collect(store))
    assert protocol_ranks(table) == []
    assert "Who wins where" not in [view.title for view in extra_views(table)]
