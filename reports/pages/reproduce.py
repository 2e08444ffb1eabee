"""Where a report comes from, and how to make it again."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version

import pandas as pd

from reports.loading.collect import NO_STUDY, StoreFrames
from reports.loading.records import StudyRecord
from reports.render.blocks import Bullets, Commands, Heading, PageBlock, Paragraph
from tiekd.store.provenance import code_state

_ALONE = 5  # runs of no study whose command is given
_LIBRARIES = ("tiekd", "numpy", "pandas", "scipy", "matplotlib")  # that make a report


def reproduction_blocks(collected: StoreFrames, store: str, command: str) -> list[PageBlock]:
    """The commands that made runs and report, and what they ran on. `command` is the report's own."""
    return [
        Heading(2, "How to make it again"),
        Paragraph("Into an empty store, with the code of the commits and the inputs of the digests below:"),
        Commands([*_alone(collected.runs, store), *_launches(collected.studies.values(), store), command]),
        Bullets(_facts(collected)),
    ]


def _launches(studies: Iterable[StudyRecord], store: str) -> list[str]:
    """What launched each study, or where its document is if that is not on record."""
    lines = []
    for study in studies:
        unknown = f"# {study.name}: its launch is not on record; its cells: {store}/studies/{study.name}/study.json"
        lines += map(shlex.join, study.commands) if study.commands else [unknown]
    return lines


def _alone(runs: pd.DataFrame, store: str) -> list[str]:
    """Each run of no study from its config in the store, which holds all that it is."""
    run_ids = runs.loc[runs["study"] == NO_STUDY, "run_id"].tolist()
    configs = [f"{store}/runs/{run_id}/config.yaml" for run_id in run_ids[:_ALONE]]
    lines = [shlex.join(["tiekd", "run", config, "--store", store]) for config in configs]
    more = len(run_ids) - len(lines)
    return [*lines, f"# and {more} more runs of no study, each from its config.yaml"] if more else lines


def _facts(collected: StoreFrames) -> list[str | tuple[str, list[str]]]:
    found, runs = collected.provenance.values(), collected.runs
    seeds = map(str, sorted(runs["seed"].dropna().unique()))
    protocols = sorted(set(runs["protocol"].dropna()) - {""})
    spent = [f"{device_hours(part)} {name or '(no study)'}" for name, part in runs.groupby("study", sort=False)]
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return [
        _fact("Commits of the runs", (_commit(p) for p in found)),
        _fact("Versions", (_pairs(p.get("versions")) for p in found)),
        _fact("Lock, and installed versions that differ from it", (_pairs(p.get("lock")) for p in found)),
        _fact("Hardware", (_pairs(p.get("hardware")) for p in found)),
        _fact("Inputs, by their digests", (text for p in found for text in _inputs(p.get("inputs")))),
        f"Seeds: {', '.join(seeds) or 'none'}",
        f"Evaluation protocols: {', '.join(protocols) or 'none'}",
        f"Device-hours: {', '.join(spent)}",
        f"This report: {_commit(code_state())}, {versions}",
    ]


def device_hours(runs: pd.DataFrame) -> str:
    """Device-hours of rows of runs.parquet; a run of two studies was computed once."""
    seconds = runs.dropna(subset="run_id").drop_duplicates("run_id")["device_seconds"].sum()
    return f"{seconds / 3600:.2f}"


def _fact(name: str, values: Iterable[str]) -> tuple[str, list[str]]:
    """Every value with how many runs have it, the most frequent first."""
    counts = Counter(value for value in values if value)
    told = [f"{value} ({n} run{'s' * (n > 1)})" for value, n in counts.most_common()]
    return name, told or ["not recorded"]


def _commit(state: dict) -> str:
    changes = f" + uncommitted changes {state['dirty']}" if state.get("dirty") else ""
    return f"commit {state['git_commit']}{changes}" if state.get("git_commit") else "no git"


def _inputs(values: object) -> list[str]:
    """Each on its own: runs share some of them."""
    return [f"{name} {digest}" for name, digest in values.items()] if isinstance(values, dict) else [_pairs(values)]


def _pairs(values: object) -> str:
    """A mapping on one line; other shapes as JSON, since provenance is written by whatever version ran."""
    if not values:
        return ""
    if isinstance(values, dict):
        return ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
    return values if isinstance(values, str) else json.dumps(values)
