"""LaTeX tables compile, fit the page, and have the texts of the tables."""

import re
import shutil
import subprocess

import pytest
from support.made_store import BASE, CELLS, LOST, fill

from reports.loading.collect import collect
from reports.pages.paper import paper_latex
from reports.pages.report_page import make_section, published_latex, tables_latex
from reports.pages.table_layouts import full_layout
from reports.render.latex import ROWS_PER_PAGE, latex_document, latex_tables, latex_text
from reports.render.text_table import Number, TextTable
from reports.tables.paper_table import paper_table
from reports.tables.table import build_tables
from tiekd.config.report_config import report_config

HOSTILE = r"a | b & 100% of C_1 #2 $x {y} ~z^ \cmd <tag> `code` *bold* [link](x)"


def test_every_special_character_is_escaped():
    text = latex_text(HOSTILE + " ± – δ1 −1 -0.5 Res-KD 深")
    bare = re.sub(r"\\textbackslash\{\}|\\text[a-z]+\{\}|\\[&%$#_{}]|\$[^$]*\$", "", text)
    assert not set(bare) & set("&%$#_{}~^\\<>|±–δ深")
    assert r"$\pm$ -- $\delta_1$ $-$1 $-$0.5 Res-KD ?" in text


def test_a_table_has_booktabs_rules_and_equal_rows(table):
    text_table = full_layout(table)
    (text,) = latex_tables(text_table, "A_b", "tab:a", ["5% `x_1` **not**"])
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    body = text[text.index(r"\midrule") :]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 9
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(text_table.columns) - 1}
    assert r"\caption{A\_b}" in text
    assert r"5\% \texttt{x\_1} \textbf{not}\par" in text


def test_blocks_are_ruled_and_the_best_is_bold():
    text_table = TextTable(["a"], [["x"], [Number("0.1 ± 0.2", "cell-1", best=True)]], frozenset({1}))
    (text,) = latex_tables(text_table, "", "tab:a", [])
    assert "x \\\\\n\\midrule\n\\textbf{0.1 $\\pm$ 0.2} \\\\" in text


def test_long_tables_are_split_with_notes_under_the_last_part():
    rows = [[str(number)] for number in range(2 * ROWS_PER_PAGE + 1)]
    parts = latex_tables(TextTable(["n"], rows), "Long", "tab:long", ["note"])
    assert [f"Long ({i} of 3)" in part for i, part in enumerate(parts, 1)] == [True] * 3
    assert [len(re.findall(r"^\d+ \\\\$", part, re.M)) for part in parts] == [ROWS_PER_PAGE, ROWS_PER_PAGE, 1]
    assert ["note" in part for part in parts] == [False, False, True]


def compiled(text: str, folder) -> tuple[str, str]:
    """The log of pdflatex, and the text of the PDF."""
    for program in ("pdflatex", "pdftotext"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: Debian's texlive-latex-extra and poppler-utils bring it")
    (folder / "t.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    read = subprocess.run(["pdftotext", "-layout", "t.pdf", "-"], cwd=folder, capture_output=True, text=True, timeout=240)
    return (folder / "t.log").read_text(errors="replace"), read.stdout


def test_the_tables_compile_and_fit_the_page(store, table, tmp_path):
    grid = [{"loss.temperature": t, "bins.n_bins": n} for t in (0.5, 1.0) for n in (32, 64)]
    fill(store, grid, 3, {"name": "grid", "base": BASE})
    fill(store, CELLS[:3], 7, {"name": "bold"})
    shown = [make_section(found, "stem", []) for found in [table, *build_tables(collect(store))]]
    log, text = compiled(tables_latex(shown), tmp_path)
    assert "Overfull" not in log
    assert "a | b & 100% of C" in text
    assert "0.0663 ± 0.0004" in text


def test_the_published_tables_compile_and_fit_the_page(tmp_path):
    log, text = compiled(published_latex([]), tmp_path)
    assert "Overfull" not in log
    assert "0.1445" in text


def test_a_paper_table_compiles_where_it_is_input(store, tmp_path):
    nyu = {"data.dataset": "nyu", "data.root": "nyu", "data.max_depth": 10.0, "evaluation.protocol": "nyu-eigen"}
    fill(store, CELLS[:7], 2, {"name": "kitti"}, LOST)
    fill(store, [{**cell, **nyu} for cell in CELLS[:4]], 2, {"name": "nyu"})
    paper = paper_latex(paper_table(build_tables(collect(store)), report_config({}, {"caption": HOSTILE})))
    packages = re.search(r"needs (\\usepackage\{.*?\})", paper)
    lines = [r"\documentclass[twocolumn]{article}", packages[1], r"\begin{document}", paper, r"\end{document}"]
    log, text = compiled("\n".join(lines), tmp_path)
    assert "Overfull" not in log
    assert re.search(r"L_?\s*DPM", text)
    assert "0.0622(4)" in text
    assert "diverged" in text


def test_text_that_looks_like_a_latex_option_is_text(tmp_path):
    rows = [["[5em]", "x"], ["*", "y"], [HOSTILE, "z"]]
    _, text = compiled(latex_document(latex_tables(TextTable(["[a]", "b"], rows), "c", "tab:c", [])), tmp_path)
    assert [line.split() for line in text.splitlines() if line.strip()][1:4] == [["[a]", "b"], ["[5em]", "x"], ["*", "y"]]


def test_many_tables_compile(tmp_path):
    """LaTeX holds at most about fifty floats at a time."""
    tables = [part for n in range(60) for part in latex_tables(TextTable(["n"], [[str(n)]]), str(n), f"tab:{n}", [HOSTILE])]
    compiled(latex_document(tables), tmp_path)
