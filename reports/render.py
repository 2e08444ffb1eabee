"""Text tables as Markdown and LaTeX."""

import re

import pandas as pd

# Characters that would start markup within a cell. An underscore inside a word, as in L_DPM, starts none.
_MARKDOWN = re.compile(r"([\\`*<\[\]|])")
# Longer ones first: δ1 before δ.
_LATEX_SYMBOLS = {
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "×": r"$\times$",
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
_MINUS = re.compile(r"(?<!\w)-(?=\d)")  # a number's sign, and no hyphen
_LATEX_SYMBOL = re.compile("|".join(map(re.escape, _LATEX_SYMBOLS)))


def markdown_table(frame: pd.DataFrame) -> str:
    """A pipe table; numbers stay the text they are."""
    escaped = frame.rename(columns=markdown_text).map(markdown_text)
    return escaped.to_markdown(index=False, disable_numparse=True)


def markdown_text(text: str) -> str:
    """`text` as one line of plain Markdown."""
    return _MARKDOWN.sub(r"\\\1", _one_line(text))


def latex_table(frame: pd.DataFrame, caption: str, label: str, notes: list[str]) -> str:
    """A booktabs table with its notes, shrunk to the line where it would be wider. Needs booktabs and graphicx."""
    escaped = frame.rename(columns=latex_text).map(latex_text)
    tabular = escaped.style.hide(axis="index").to_latex(hrules=True, column_format="l" * frame.shape[1]).strip()
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\label{{{label}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        f"{tabular}%",
        "}",
        r"\par\medskip\begin{minipage}{\linewidth}\raggedright\footnotesize",
        *(rf"{latex_text(_without_markup(note))}\par" for note in notes),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def latex_document(tables: list[str]) -> str:
    """Tables as a document that compiles as it is; cut at its comments to include them elsewhere."""
    head = [r"\documentclass{article}", r"\usepackage[margin=2cm]{geometry}", r"\usepackage{booktabs,graphicx}"]
    return "\n\n".join(["\n".join(head), r"\begin{document}", "% tables begin", *tables, "% tables end", r"\end{document}", ""])


def latex_text(text: str) -> str:
    """`text` as LaTeX; what neither ASCII nor Latin-1 holds becomes a question mark, since plain LaTeX stops at it."""
    escaped = _LATEX_SYMBOL.sub(lambda match: _LATEX_SYMBOLS[match[0]], _one_line(text))
    escaped = _MINUS.sub("$-$", escaped)
    return escaped.encode("latin-1", "replace").decode("latin-1")


def _without_markup(note: str) -> str:
    return note.replace("`", "").replace("**", "")


def _one_line(text: str) -> str:
    """Causes come from programs: line breaks become spaces, and control characters vanish."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())
