"""Markdown and LaTeX that their readers accept, whatever the texts hold."""

import html
import re

import pandas as pd
from markdown_it import MarkdownIt

from reports.layout import full
from reports.render import latex_document, latex_table, latex_text, markdown_table

HOSTILE = r"a | b & 100% of C_1 #2 $x {y} ~z^ \cmd <tag> `code` *bold* [link](x)"


def cells_of(markdown: str) -> list[list[str]]:
    """The texts of a rendered table's rows."""
    rows = MarkdownIt("commonmark").enable("table").render(markdown).split("<tr>")[1:]
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL)] for row in rows]


def test_markdown_reads_back_as_it_was(table):
    frame = full(table)
    assert cells_of(markdown_table(frame)) == [list(frame.columns), *frame.values.tolist()]


def test_markdown_keeps_hostile_text_in_its_cell():
    assert cells_of(markdown_table(pd.DataFrame({"a": [HOSTILE], "b": ["0.10"]}))) == [["a", "b"], [HOSTILE, "0.10"]]


def test_markdown_puts_text_of_many_lines_on_one():
    assert cells_of(markdown_table(pd.DataFrame({"a": ["x\ny\t\x1b[0mz"]}))) == [["a"], ["x y [0mz"]]


def test_latex_escapes_every_special_character():
    text = latex_text(HOSTILE + " ± – δ1 −1 -0.5 Res-KD 深")
    bare = re.sub(r"\\textbackslash\{\}|\\text[a-z]+\{\}|\\[&%$#_{}]|\$[^$]*\$", "", text)
    assert not set(bare) & set("&%$#_{}~^\\<>|±–δ深")
    assert r"$\pm$ -- $\delta_1$ $-$1 $-$0.5 Res-KD ?" in text


def test_latex_table_has_booktabs_rules_and_equal_rows(table):
    frame = full(table)
    text = latex_table(frame, "A_b", "tab:a", ["5% `x`"])
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 10
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {frame.shape[1] - 1}
    assert r"\caption{A\_b}" in text
    assert r"5\% x" in text


def test_latex_document_balances_its_braces_and_environments(table):
    text = latex_document([latex_table(full(table), "c", "tab:c", ["note"])])
    assert re.findall(r"\\begin\{(\w+)\}", text) == ["document", "table", "tabular", "minipage"]
    assert re.findall(r"\\end\{(\w+)\}", text) == ["tabular", "minipage", "table", "document"]
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.startswith(r"\documentclass{article}")
    assert "booktabs,graphicx" in text
