"""Markdown is rendered as intended, whatever characters the texts contain."""

import html
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from reports.pages.table_layouts import full_layout
from reports.render.blocks import Bullets, Commands, Figure, Heading, Links, Paragraph
from reports.render.markdown import markdown_table, render_markdown
from reports.render.text_table import Number, TextTable

HOSTILE = r"a | b & 100% of C_1 #2 $x {y} ~z^ \cmd <tag> `code` *bold* [link](x)"


def rendered(text: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(text)


def cells_of(text: str) -> list[list[str]]:
    """The texts in the rows of a rendered table."""
    rows = re.sub(r"</?(a|strong)\b[^>]*>", "", rendered(text)).split("<tr>")[1:]
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL)] for row in rows]


def test_a_rendered_table_has_the_same_texts(table):
    text_table = full_layout(table)
    assert cells_of(markdown_table(text_table, "runs.md")) == [text_table.columns, *text_table.to_frame().values.tolist()]


def test_hostile_text_stays_in_its_cell():
    text_table = TextTable(["a", "b"], [[HOSTILE, Number(HOSTILE, "cell-1", best=True)]])
    assert cells_of(markdown_table(text_table)) == [["a", "b"], [HOSTILE, HOSTILE]]


def test_multiline_text_becomes_one_line():
    assert cells_of(markdown_table(TextTable(["abc"], [["x\ny\t\x1b[0mz"]]))) == [["abc"], ["x y [0mz"]]


def test_numbers_link_to_runs_and_the_best_is_bold():
    text = rendered(
        markdown_table(TextTable(["abc"], [[Number("0.1", "cell-1")], [Number("0.2", "cell-2", best=True)]]), "runs.md")
    )
    assert '<td><a href="runs.md#cell-1">0.1</a></td>' in text
    assert '<td><a href="runs.md#cell-2"><strong>0.2</strong></a></td>' in text


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (Heading(2, "A <b> & c", "here"), '<p><a id="here"></a></p>\n<h2>A &lt;b&gt; &amp; c</h2>\n'),
        (
            Paragraph("with `a_b*` and **more** at 5 < 6"),
            "<p>with <code>a_b*</code> and <strong>more</strong> at 5 &lt; 6</p>\n",
        ),
        (
            Bullets(["one", ("two", ["`x`"])]),
            "<ul>\n<li>one</li>\n<li>two\n<ul>\n<li><code>x</code></li>\n</ul>\n</li>\n</ul>\n",
        ),
        (Commands(["tiekd run a\nb"]), '<pre><code class="language-bash">tiekd run a b\n</code></pre>\n'),
        (Links([("the [runs]", "runs.md")]), '<ul>\n<li><a href="runs.md">the [runs]</a></li>\n</ul>\n'),
        (
            Figure(Path("out/figures/a.svg"), "seeds of `x`"),
            '<p><img src="figures/a.png" alt="seeds of x" /></p>\n<p><em>seeds of <code>x</code></em></p>\n',
        ),
    ],
)
def test_every_block_is_rendered(block, expected):
    assert rendered(render_markdown([block], "")) == expected
