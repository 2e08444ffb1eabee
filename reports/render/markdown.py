"""Render blocks as Markdown."""

import re
from collections.abc import Iterable

from reports.render.blocks import Bullets, Commands, Figure, Heading, Links, PageBlock, Paragraph
from reports.render.inline_markup import single_line, split_spans
from reports.render.text_table import Entry, Link, TextTable

# Characters that start markup. An underscore inside a word, as in L_DPM, does not.
_SPECIAL = re.compile(r"[\\`*<\[\]|]")


def render_markdown(blocks: Iterable[PageBlock], runs_page: str) -> str:
    """Render a page; numbers link to anchors of `runs_page`, a file beside it ("" for the page itself)."""
    return "\n\n".join([*(_block(block, runs_page) for block in blocks), ""])


def markdown_table(table: TextTable, runs_page: str = "") -> str:
    """Render a pipe table without optional columns; numbers keep their digits."""
    table = table.essential()
    titles, rows = table.render(_escaped, lambda entry, text: _entry(entry, text, runs_page))
    widths = [max(3, *map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = [titles, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def _plain(text: str) -> str:
    """Escape a text as one line of Markdown."""
    return _escaped(single_line(text))


def _prose(text: str) -> str:
    return "".join(_SPAN[kind](piece) for kind, piece in split_spans(single_line(text)))


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", text)  # a replacement template would be parsed for each text


_SPAN = {"plain": _escaped, "code": lambda text: f"`{text}`", "strong": lambda text: f"**{_escaped(text)}**"}


def _block(block: PageBlock, runs_page: str) -> str:
    match block:
        case TextTable():
            return markdown_table(block, runs_page)
        case Heading():
            anchor = f'<a id="{block.anchor}"></a>\n\n' if block.anchor else ""
            return f"{anchor}{'#' * block.level} {_plain(block.text)}"
        case Paragraph():
            return _prose(block.text)
        case Bullets():
            return "\n".join(_item(item) for item in block.items)
        case Figure():
            text = _prose(block.caption)
            return f"![{text}](figures/{block.file.with_suffix('.png').name})\n\n*{text}*"
        case Commands():
            return "\n".join(["```bash", *map(single_line, block.lines), "```"])
        case Links():
            return "\n".join(f"- [{_plain(text)}]({target})" for text, target in block.items)


def _item(item: str | tuple[str, list[str]]) -> str:
    if isinstance(item, str):
        return f"- {_prose(item)}"
    return "\n".join([f"- {_prose(item[0])}", *(f"  - {_prose(part)}" for part in item[1])])


def _entry(entry: Entry, text: str, runs_page: str) -> str:
    if isinstance(entry, str):
        return text
    if isinstance(entry, Link):
        return f"[{text}]({entry.address})"
    return f"[{f'**{text}**' if entry.best else text}]({runs_page}#{entry.anchor})"
