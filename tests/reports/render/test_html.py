"""report.html is self-contained: it has one script, its own."""

import pytest
from support.html_page import Page

from reports.render.blocks import Bullets, Commands, Figure, Heading, Links, Paragraph
from reports.render.html import render_html
from reports.render.text_table import Number, TextTable

HOSTILE = "<script>alert(1)</script> \"quoted\" & 'more' `<b>` **<i>**"


@pytest.fixture
def blocks(tmp_path):
    figure = tmp_path / "f.svg"
    figure.write_text("<svg/>")
    text_table = TextTable([HOSTILE], [[HOSTILE], [Number(HOSTILE, "cell-1", best=True)]], frozenset({1}))
    lists = [Bullets([HOSTILE, (HOSTILE, [HOSTILE])]), Links([(HOSTILE, "#cell-1")]), Commands([HOSTILE])]
    return [Heading(3, HOSTILE, "cell-1"), Paragraph(HOSTILE), *lists, Figure(figure, HOSTILE), text_table]


def test_hostile_text_is_escaped_everywhere(blocks):
    page = Page(render_html(HOSTILE, blocks))
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert not page.all("i")
    assert page.text.count("<script>alert(1)</script>") == 12  # the title, and each text but the figure's alt
    assert page.all("img")[0]["alt"] == HOSTILE


def test_a_page_is_self_contained(blocks):
    page = Page(render_html("Report", blocks))
    assert page.all("link") == [{"rel": "icon", "href": "data:,"}]
    assert page.all("script") == [{}]
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.all("img"))
    assert all(link["href"].startswith("#") for link in page.all("a"))
    assert len(page.all("style")) == 1
    assert "url(" not in render_html("Report", [])


def test_numbers_link_to_runs_and_blocks_are_ruled(blocks):
    page = Page(render_html("Report", blocks))
    assert page.all("a")[-1]["href"] == "#cell-1"
    assert page.all("h3")[0]["id"] == "cell-1"
    assert len(page.all("tbody")) == 2
    assert [tag for tag, _ in page.tags][-3:] == ["strong", "a", "script"]
