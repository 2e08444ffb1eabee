"""How to reproduce a report: commands, commits, versions, inputs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version

import pandas as pd

from reports.loading.collect import StoreFrames
from reports.pages.recipe import FOLDER, Recipe
from reports.render.blocks import Bullets, Commands, Heading, PageBlock, Paragraph
from tiekd.store.provenance import code_state

_LIBRARIES = ("tiekd", "numpy", "pandas", "scipy", "matplotlib")  # used by a report


def reproduction_blocks(collected: StoreFrames, recipe: Recipe, command: str) -> list[PageBlock]:
    """The commands that make the runs and the report again, and their environment. `command` makes the report."""
    roots = sorted(collected.runs["data.root"].dropna().unique())
    data = f" They read the data in {', '.join(f'`{root}`' for root in roots)}." if roots else ""
    return [
        Heading(2, "How to reproduce this report"),
        Paragraph(
            f"Copy the folder `{FOLDER}` of this report into an empty folder, and run these commands there, with the commits "
            f"and the inputs listed below.{data}"
        ),
        Commands([*recipe.commands, command]),
        Bullets(_facts(collected)),
    ]


def _facts(collected: StoreFrames) -> list[str | tuple[str, list[str]]]:
    found, runs = collected.provenance.values(), collected.runs
    seeds = map(str, sorted(runs["seed"].dropna().unique()))
    protocols = sorted(set(runs["protocol"].dropna()) - {""})
    spent = [f"{device_hours(part)} {str(name) or '(no study)'}" for name, part in runs.groupby("study", sort=False)]
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return [
        _fact("Commits of the runs", (_commit(p) for p in found)),
        _fact("Versions", (_pairs(p.get("versions")) for p in found)),
        _fact("Lock, and installed versions that differ from it", (_pairs(p.get("lock")) for p in found)),
        _fact("Hardware", (_pairs(p.get("hardware")) for p in found)),
        _fact("Digests of inputs", (f"{name} {digest}" for p in found for name, digest in p.get("inputs", {}).items())),
        f"Seeds: {', '.join(seeds) or 'none'}",
        f"Evaluation protocols: {', '.join(protocols) or 'none'}",
        f"Device-hours: {', '.join(spent)}",
        f"This report: {_commit(code_state())}, {versions}",
    ]


def device_hours(runs: pd.DataFrame) -> str:
    """Device-hours of rows of runs.parquet; a run shared by two studies counts once."""
    seconds = runs.dropna(subset="run_id").drop_duplicates("run_id")["device_seconds"].sum()
    return f"{seconds / 3600:.2f}"


def _fact(name: str, values: Iterable[str]) -> tuple[str, list[str]]:
    """Every value with its number of runs, the most frequent first."""
    counts = Counter(value for value in values if value)
    texts = [f"{value} ({n} run{'s' * (n > 1)})" for value, n in counts.most_common()]
    return name, texts or ["not recorded"]


def _commit(state: Mapping[str, object]) -> str:
    changes = f" + uncommitted changes {state['dirty']}" if state.get("dirty") else ""
    return f"commit {state['git_commit']}{changes}" if state.get("git_commit") else "no git"


def _pairs(values: Mapping[str, object] | None) -> str:
    """A mapping on one line."""
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value != "")
