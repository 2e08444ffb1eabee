"""Render blocks as one self-contained HTML file, whose tables can be sorted and filtered where scripts run."""

import base64
import re
from collections.abc import Iterable
from functools import cache
from html import escape

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from reports.render.blocks import Figure, PageBlock
from reports.render.inline_markup import single_line, split_spans
from reports.render.text_table import Entry, Number, TextTable, entry_text

PX_PER_POINT = 2  # of a figure: 8 pt are then as large as the page's text, 16 px
_LONG = 40  # characters; longer texts wrap
_SPAN = {"plain": "{}", "code": "<code>{}</code>", "strong": "<strong>{}</strong>"}


def render_html(title: str, blocks: Iterable[PageBlock]) -> str:
    """Render a page; numbers link to anchors of the page, and figures are embedded."""
    return _template().render(title=title, blocks=blocks)


def _prose(text: str) -> Markup:
    return Markup("".join(_SPAN[kind].format(escape(piece)) for kind, piece in split_spans(single_line(text))))


def _body(table: TextTable) -> Markup:
    """The rows of a table; not in the template, since a report may have a hundred thousand entries."""
    _, entries = table.render(escape, _entry)
    for column in (table.columns.index(title) for title in table.optional):
        for row in entries:
            row[column] = row[column].replace("<td", "<td hidden", 1)
    rows = (f"<tr>{''.join(row)}</tr>\n" for row in entries)
    ruled = (f"</tbody><tbody>\n{row}" if number in table.rules else row for number, row in enumerate(rows))
    return Markup(f"<tbody>\n{''.join(ruled)}</tbody>")


def _entry(entry: Entry, text: str) -> str:
    start = '<td class="long">' if len(entry_text(entry)) > _LONG else "<td>"
    if isinstance(entry, str):
        return f"{start}{text}</td>"
    if isinstance(entry, Number):
        text = f'<a href="#{escape(entry.anchor)}">{text}</a>'
        return f"{start}<strong>{text}</strong></td>" if entry.best else f"{start}{text}</td>"
    return f'{start}<a href="{escape(entry.address)}">{text}</a></td>'


def _picture(figure: Figure) -> str:
    """The figure's SVG as a data URI: scripts in it cannot run, and its ids cannot clash."""
    return f"data:image/svg+xml;base64,{base64.b64encode(figure.file.read_bytes()).decode()}"


def _width(figure: Figure) -> int:
    """The figure's width on the page in px, at which its text has the size of the page's."""
    found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', figure.file.read_bytes())
    return round(float(found[1]) * PX_PER_POINT) if found else 0


@cache
def _template() -> Template:
    environment = Environment(loader=PackageLoader("reports", "render"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"prose": _prose, "body": _body, "picture": _picture, "width": _width, "one_line": single_line}
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    return environment.get_template("report.html.j2")
