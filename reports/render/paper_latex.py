"""Render a paper table as a LaTeX fragment with booktabs rules and siunitx columns."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from reports.render.latex import latex_notes, latex_tabular, latex_text

PACKAGES = ("booktabs", "graphicx", "siunitx")
_WIDE = 8  # columns of numbers; more go across both columns of a page
_LOSS = re.compile(r"L\\_([A-Z]+)")


@dataclass(frozen=True)
class LatexColumn:
    """A column of texts, or of numbers with so many digits before and after the point, and of the spread."""

    title: str
    before: int = 0
    after: int = 0
    spread: int = 0

    @property
    def numeric(self) -> bool:
        return self.before > 0

    @property
    def kind(self) -> str:
        if not self.numeric:
            return "l"
        return f"S[table-format={self.before}.{self.after}{f'({self.spread})' if self.spread else ''}]"


@dataclass(frozen=True)
class PaperLayout:
    """Columns in groups (number of columns, title); entries are texts, or numbers with whether they are bold."""

    columns: Sequence[LatexColumn]
    groups: Sequence[tuple[int, str]]
    rows: Sequence[Sequence[str | tuple[str, bool]]]
    rules: Collection[int]


def latex_fragment(layout: PaperLayout, caption: str, label: str, notes: list[str]) -> str:
    """One float, scaled down to the line width if it is wider, with the notes below it."""
    wide = sum(column.numeric for column in layout.columns) > _WIDE
    environment = "table*" if wide else "table"
    return "\n".join(
        [
            f"% needs \\usepackage{{{','.join(PACKAGES)}}}",
            rf"\begin{{{environment}}}[t]",
            r"\centering",
            rf"\caption{{{_symbols(caption)}}}",
            rf"\label{{{label}}}",
            r"\sisetup{detect-weight=true, mode=text}",
            *latex_tabular((column.kind for column in layout.columns), _body(layout)),
            *latex_notes(notes),
            rf"\end{{{environment}}}",
            "",
        ]
    )


def _body(layout: PaperLayout) -> list[str]:
    titles = [rf"{{{_symbols(c.title)}}}" if c.numeric else _symbols(c.title) for c in layout.columns]
    lines = [r"\toprule", *_group_titles(layout), f"{' & '.join(titles)} \\\\", r"\midrule"]
    for number, row in enumerate(layout.rows):
        lines += [r"\midrule"] if number in layout.rules else []
        lines.append(" & ".join(_entry(entry, c) for entry, c in zip(row, layout.columns, strict=True)) + r" \\")
    return lines


def _group_titles(layout: PaperLayout) -> list[str]:
    """A line of titles over groups of columns, and the rules below them."""
    if not layout.groups:
        return []
    titles, rules, first = [], [], 1
    for width, title in layout.groups:
        titles.append(rf"\multicolumn{{{width}}}{{c}}{{{_symbols(title)}}}")
        rules += [rf"\cmidrule(lr){{{first}-{first + width - 1}}}"] if title else []
        first += width
    return [f"{' & '.join(titles)} \\\\", "".join(rules)]


def _entry(entry: str | tuple[str, bool], column: LatexColumn) -> str:
    if isinstance(entry, tuple):
        number, bold = entry
        return rf"\bfseries {number}" if bold else number
    return f"{{{_symbols(entry)}}}" if column.numeric or entry.startswith(("[", "*")) else _symbols(entry)


def _symbols(text: str) -> str:
    """Escaped text, in which the names of losses are math."""
    return _LOSS.sub(r"$\\mathcal{L}_{\\mathrm{\1}}$", latex_text(text))
