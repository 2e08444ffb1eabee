"""Render tables as LaTeX with booktabs."""

import re
from collections.abc import Iterable

from reports.render.inline_markup import single_line, split_spans
from reports.render.text_table import Entry, Number, TextTable

ROWS_PER_PAGE = 40
_LONG_TITLE = 12
# Longer keys come first: δ1 before δ.
_SYMBOLS = {
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "×": r"$\times$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "…": r"\ldots{}",
    "·": r"$\cdot$",
    "|": r"\textbar{}",
    "<": r"$<$",
    ">": r"$>$",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{symbol: rf"\{symbol}" for symbol in "&%$#_{}"},
    "δ1": r"$\delta_1$",
    "δ2": r"$\delta_2$",
    "δ3": r"$\delta_3$",
    "δ": r"$\delta$",
}
_MINUS = re.compile(r"(?<!\w)-(?=\d)")  # the sign of a number, not a hyphen
_SYMBOL = re.compile("|".join(map(re.escape, _SYMBOLS)))


def latex_tables(table: TextTable, caption: str, label: str, notes: list[str]) -> list[str]:
    """Booktabs tables of at most ROWS_PER_PAGE rows, with the notes under the last and without optional columns.

    Needs booktabs and graphicx.
    """
    pages = table.essential().split(ROWS_PER_PAGE)
    parts = []
    for number, page in enumerate(pages, 1):
        title = f"{caption} ({number} of {len(pages)})" if len(pages) > 1 else caption
        ending = f"-{number}" if number > 1 else ""
        parts.append(_table(page, title, f"{label}{ending}", notes if number == len(pages) else []))
    return parts


def latex_document(tables: list[str]) -> str:
    """A document that compiles; the tables are between the comments."""
    head = [r"\documentclass{article}", r"\usepackage[margin=2cm]{geometry}", r"\usepackage{booktabs,graphicx}"]
    # LaTeX holds few floats at a time, so each gets a page.
    body = "\n\n\\clearpage\n\n".join(tables)
    return "\n\n".join(["\n".join(head), r"\begin{document}", "% tables begin", body, "% tables end", r"\end{document}", ""])


def latex_text(text: str) -> str:
    """Escape a text as one line of LaTeX; characters outside Latin-1 become question marks, since plain LaTeX fails on them."""
    return _escaped(single_line(text))


def _escaped(text: str) -> str:
    symbols = _SYMBOL.sub(lambda match: _SYMBOLS[match[0]], text)
    return _MINUS.sub("$-$", symbols).encode("latin-1", "replace").decode("latin-1")


def _table(table: TextTable, caption: str, label: str, notes: list[str]) -> str:
    """One float, scaled down to the line width if it is wider."""
    _, rows = table.render(_escaped, _entry)
    lines = [r"\toprule", " & ".join(map(_title, table.columns)) + r" \\", r"\midrule"]
    for number, row in enumerate(rows):
        lines += [r"\midrule"] if number in table.rules else []
        lines.append(" & ".join(row) + r" \\")
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\label{{{label}}}",
            *latex_tabular(map(_column, table.columns), lines),
            *latex_notes(notes),
            r"\end{table}",
        ]
    )


def latex_tabular(columns: Iterable[str], lines: Iterable[str]) -> list[str]:
    """Lines under column types, scaled down to the line width if they are wider."""
    return [
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join(columns)}}}",
        *lines,
        r"\bottomrule",
        r"\end{tabular}%",
        "}",
    ]


def latex_notes(notes: list[str]) -> list[str]:
    """Notes below a table, each on a line of its own."""
    lines = [rf"{_prose(note)}\par" for note in notes]
    return [r"\par\medskip\begin{minipage}{\linewidth}\raggedright\footnotesize", *lines, r"\end{minipage}"] if notes else []


def _column(title: str) -> str:
    """The column type: causes of failures wrap."""
    return "p{5cm}" if title.startswith("State") else "l"


def _title(text: str) -> str:
    """A column's title; the last word of a long title goes below the others."""
    first, _, last = text.rpartition(" ")
    if len(text) <= _LONG_TITLE or not first:
        return _guarded(latex_text(text))
    return rf"\shortstack[l]{{{latex_text(first)}\\{latex_text(last)}}}"


def _prose(text: str) -> str:
    commands = {"plain": "", "code": r"\texttt", "strong": r"\textbf"}
    pieces = ((commands[kind], _escaped(piece)) for kind, piece in split_spans(single_line(text)))
    return "".join(f"{command}{{{piece}}}" if command else piece for command, piece in pieces)


def _guarded(text: str) -> str:
    """Protect a row's first entry from being read as an option of the rule or line break before it."""
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def _entry(entry: Entry, text: str) -> str:
    text = _guarded(text)
    return rf"\textbf{{{text}}}" if isinstance(entry, Number) and entry.best else text
