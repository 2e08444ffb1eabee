"""`tables.md`, `tables.tex`, `published.*` and `report.md`, from tables and collected frames."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reports.collect import Collected
from reports.layout import compact, full, laid_out, published_rows
from reports.notes import notes
from reports.paper import published
from reports.render import latex_document, latex_table, markdown_table, markdown_text
from reports.tables import Table
from tiekd.labels import CORRECTED
from tiekd.store import STATES


@dataclass(frozen=True)
class Shown:
    """A table's place in the report: its heading, its stem in names of files, and the figures as (file, caption)."""

    table: Table
    heading: str
    stem: str
    figures: tuple[tuple[Path, str], ...] = ()


def heading(table: Table) -> str:
    study = table.study.title or table.study.name or "Runs of no study"
    stated = {cell.fidelity for cell in table.cells}
    arithmetic = f", fidelity {stated.pop()}" if len(stated) == 1 and stated != {CORRECTED} else ""
    return f"{study}: {table.dataset}, protocol {table.protocol}{arithmetic}"


def stem(table: Table) -> str:
    return f"{table.study.name or 'no-study'}-{table.dataset}-{table.protocol}"


def tables_markdown(shown: Iterable[Shown], images: pd.DataFrame) -> str:
    """Every table with all its metrics and notes."""
    parts = ["# Tables"]
    for item in shown:
        frame, lines = laid_out(item.table, full), _bullets(notes(item.table, images))
        parts += [f"## {markdown_text(item.heading)}", markdown_table(frame), lines]
    return "\n\n".join([*parts, "Runs are folders `runs/ID...` of the store; tables.parquet holds their full ids.\n"])


def tables_latex(shown: Iterable[Shown], images: pd.DataFrame) -> str:
    """The compact tables, as a document that compiles and can be cut up."""
    return latex_document(
        [
            latex_table(
                laid_out(item.table, compact),
                item.heading,
                f"tab:{item.stem}",
                notes(item.table, images),
            )
            for item in shown
        ]
    )


def published_tables(tables: list[Table]) -> list[tuple[str, pd.DataFrame]]:
    """(heading, table) of each published table, our numbers beside the published ones where `tables` hold them."""
    datasets = published()["dataset"].unique()
    return [
        (f"{dataset}: {role}s", published_rows(role, dataset, tables))
        for dataset in datasets
        for role in ("teacher", "student")
    ]


def published_markdown(tables: list[Table]) -> str:
    parts = ["# Published tables"]
    for title, frame in published_tables(tables):
        parts += [f"## {title}", markdown_table(frame)]
    return "\n\n".join([*parts, ""])


def published_latex(tables: list[Table]) -> str:
    found = published_tables(tables)
    return latex_document(
        [latex_table(frame, f"Published, {title}", f"tab:{title.replace(': ', '-')}", []) for title, frame in found]
    )


def report_markdown(collected: Collected, shown: list[Shown], command: str) -> str:
    """The page that is read first: what was run, what came out, what failed, and where it came from."""
    parts = ["# Report", "## What was run", _what_was_run(collected)]
    for item in shown:
        frame, lines = laid_out(item.table, compact), _bullets(notes(item.table, collected.images))
        parts += [f"## {markdown_text(item.heading)}", markdown_table(frame), lines]
        parts += [f"![{caption}](figures/{file.name})\n\n*{caption}*" for file, caption in item.figures]
    parts += [
        "All metrics and the runs of each row: [tables.md](tables.md).",
        "## Runs without a number",
        _failures(collected.runs),
    ]
    return "\n\n".join([*parts, "## Provenance", _provenance(collected), f"Made by:\n\n```\n{command}\n```\n"])


def _what_was_run(collected: Collected) -> str:
    runs = collected.runs
    counts = pd.crosstab(runs["study"].replace("", "(no study)"), runs["state"])
    counts = counts.reindex(columns=[state for state in STATES if state in counts.columns])
    once = runs.dropna(subset="run_id").drop_duplicates("run_id")  # a run of two studies is computed once
    hours = once["device_seconds"].sum() / 3600
    text = counts.reset_index().astype(str)
    return f"{markdown_table(text)}\n\n{len(once)} distinct runs, {hours:.2f} device-hours recorded."


def _failures(runs: pd.DataFrame) -> str:
    lost = runs.loc[~runs["state"].isin(["done", "running"])]
    lost = lost.loc[(lost["state"] != "missing") | (lost["cause"] != "")]
    lost = lost.loc[lost["run_id"].isna() | ~lost.duplicated("run_id")]
    if lost.empty:
        return "None."
    causes = lost.groupby(["state", "cause"], sort=False)["run_id"].agg(
        Runs="size", Ids=lambda ids: " ".join(i[:8] for i in ids.dropna()) or "–"
    )
    return markdown_table(causes.reset_index().rename(columns=str.capitalize).astype(str))


def _provenance(collected: Collected) -> str:
    found = collected.provenance.values()
    seeds = ", ".join(map(str, sorted(collected.runs["seed"].dropna().unique())))
    facts = {
        "Commits": {f"{p.get('git_commit') or 'no git'}{' + uncommitted changes' if p.get('dirty') else ''}" for p in found},
        "Versions": {_pairs(p.get("versions")) for p in found},
        "Hardware": {_pairs(p.get("hardware")) for p in found},
        "Inputs": {f"{name} {digest}" for p in found for name, digest in (p.get("inputs") or {}).items()},
        "Seeds": {seeds},
    }
    return "\n".join(_fact(name, values) for name, values in facts.items())


def _fact(name: str, values: set[str]) -> str:
    known = sorted(value for value in values if value) or ["not recorded"]
    return "\n".join([f"- {name}:", *(f"  - {markdown_text(value)}" for value in known)])


def _pairs(values: object) -> str:
    """A mapping on one line; other shapes as JSON, since provenance is written by whatever version ran."""
    if not values:
        return ""
    if isinstance(values, dict):
        return ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
    return values if isinstance(values, str) else json.dumps(values)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
