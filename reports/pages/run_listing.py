"""The runs of each cell: the target of the links from every number."""

from collections.abc import Iterator

from reports.loading.schema import DIGITS, METRIC_LABELS
from reports.render.blocks import Heading, PageBlock, Paragraph
from reports.render.text_table import ABSENT, Entry, Link, TextTable
from reports.tables.formatting import cell_name, common_name, format_value, shorten
from reports.tables.table import Table
from reports.viewer.links import Viewer

_SETTINGS = 12  # settings that are listed of a cell's differences from its baseline


def run_listing(table: Table, viewer: Viewer | None) -> Iterator[PageBlock]:
    """Each cell of a table with all of its runs, linked to their pictures if the viewer has them."""
    if common := common_name(table):
        yield Paragraph(f"All runs: {common}.")
    for index, cell in enumerate(table.cells):
        yield Heading(4, cell_name(table, cell), table.anchor(index))
        if (baseline := table.baselines[index]) is not None:
            yield Paragraph(_difference(table, index, baseline))
        yield TextTable.from_rows(_row(run) | _pictures(run, viewer) for run in cell.runs)


def _difference(table: Table, index: int, baseline: int) -> str:
    """The settings that differ from the baseline, whose value is in parentheses, or that only this cell reads."""
    ours, theirs = table.cells[index].settings, table.cells[baseline].settings
    changed = [path for path in ours if path in theirs and ours[path] != theirs[path]]
    added = [path for path in ours if path not in theirs and ours[path] is not None]
    texts = [f"`{path}` {format_value(ours[path])} ({format_value(theirs[path])})" for path in changed]
    texts += [f"`{path}` {format_value(ours[path])}" for path in added]
    more = f" and {len(texts) - _SETTINGS} more" if len(texts) > _SETTINGS else ""
    return f"Differs from its baseline ({cell_name(table, table.cells[baseline])}): {'; '.join(texts[:_SETTINGS])}{more}."


def _pictures(run: dict, viewer: Viewer | None) -> dict[str, Entry]:
    if viewer is None or run["run_id"] not in viewer.run_ids:
        return {}
    return {"Pictures": Link("viewer", viewer.address_of(run["run_id"]))}


def _row(run: dict) -> dict[str, str]:
    state = f"{run['state']}: {run['cause']}" if run["cause"] else run["state"]
    seconds = run["device_seconds"]
    return {
        "Seed": str(run["seed"]),
        "State": shorten(state),
        **{label: ABSENT if run[m] != run[m] else f"{run[m]:.{DIGITS + 1}f}" for m, label in METRIC_LABELS.items()},
        "Device-seconds": ABSENT if seconds != seconds else f"{seconds:.0f}",
        "Folder in the store": f"runs/{run['run_id']}" if run["run_id"] else ABSENT,
    }
