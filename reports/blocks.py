"""What pages are made of, before they become Markdown or HTML.

Texts of paragraphs, lists and captions are prose: `code` in backquotes, **strong** between double asterisks, nothing else is
markup. Headings, links and tables are plain text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reports.sheet import Sheet

_SPANS = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<strong>.+?)\*\*")


@dataclass(frozen=True)
class Heading:
    level: int  # 1 is the page's title
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Bullets:
    """Prose items; a tuple is an item with items of its own: (item, [item, ...])."""

    items: list[str | tuple[str, list[str]]]


@dataclass(frozen=True)
class Figure:
    """`file` is the SVG; the PNG lies beside it."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: list[str]


@dataclass(frozen=True)
class Links:
    """Lines that lead elsewhere, as (text, target): an anchor of the page, or a file beside it."""

    items: list[tuple[str, str]]


Block = Heading | Paragraph | Bullets | Figure | Commands | Links | Sheet


def spans(prose: str) -> Iterator[tuple[str, str]]:
    """The pieces of a prose text, each with its kind: "code", "strong" or "plain"."""
    end = 0
    for match in _SPANS.finditer(prose):
        if match.start() > end:
            yield "plain", prose[end : match.start()]
        yield str(match.lastgroup), match[match.lastgroup or 0]
        end = match.end()
    if end < len(prose):
        yield "plain", prose[end:]


def one_line(text: str) -> str:
    """Causes come from programs: line breaks become spaces, and control characters vanish."""
    if text.isprintable() and "  " not in text and text == text.strip():  # as almost all of a hundred thousand entries are
        return text
    return "".join(filter(str.isprintable, " ".join(text.split())))
