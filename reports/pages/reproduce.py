"""How to reproduce a report: commands, commits, versions, inputs."""

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

_MAX_SINGLE_RUNS = 5  # runs without a study whose command is printed
_LIBRARIES = ("tiekd", "numpy", "pandas", "scipy", "matplotlib")  # used by a report


def reproduction_blocks(collected: StoreFrames, store: str, command: str) -> list[PageBlock]:
    """The commands that made the runs and the report, and their environment. `command` made the report."""
    return [
        Heading(2, "How to reproduce this report"),
        Paragraph("Run these commands with an empty store, the commits and the inputs listed below:"),
        Commands([*_single_runs(collected.runs, store), *_launches(collected.studies.values(), store), command]),
        Bullets(_facts(collected)),
    ]


def _launches(studies: Iterable[StudyRecord], store: str) -> list[str]:
    """The commands that launched each study, or the place of its document if they were not recorded."""
    lines: list[str] = []
    for study in studies:
        unknown = f"# {study.name}: its launch was not recorded; its cells: {store}/studies/{study.name}/study.json"
        lines += map(shlex.join, study.commands) if study.commands else [unknown]
    return lines


def _single_runs(runs: pd.DataFrame, store: str) -> list[str]:
    """A command for each run without a study, from its config in the store."""
    run_ids = runs.loc[runs["study"] == NO_STUDY, "run_id"].tolist()
    configs = [f"{store}/runs/{run_id}/config.yaml" for run_id in run_ids[:_MAX_SINGLE_RUNS]]
    lines = [shlex.join(["tiekd", "run", config, "--store", store]) for config in configs]
    more = len(run_ids) - len(lines)
    return [*lines, f"# and {more} more runs without a study, each from its config.yaml"] if more else lines


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
        _fact("Digests of inputs", (text for p in found for text in _inputs(p.get("inputs")))),
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


def _commit(state: dict) -> str:
    changes = f" + uncommitted changes {state['dirty']}" if state.get("dirty") else ""
    return f"commit {state['git_commit']}{changes}" if state.get("git_commit") else "no git"


def _inputs(values: object) -> list[str]:
    """One text per input, since runs share some of them."""
    return [f"{name} {digest}" for name, digest in values.items()] if isinstance(values, dict) else [_pairs(values)]


def _pairs(values: object) -> str:
    """A mapping on one line; anything else as JSON, since any version may have written the provenance."""
    if not values:
        return ""
    if isinstance(values, dict):
        return ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
    return values if isinstance(values, str) else json.dumps(values)
