"""What pages are made of, before they become Markdown or HTML.

Texts of paragraphs, lists and captions are prose: `code` in backquotes, **strong** between double asterisks, nothing else is
markup. Headings, links and tables are plain text.
"""

from dataclasses import dataclass
from pathlib import Path

from reports.render.text_table import TextTable


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


PageBlock = Heading | Paragraph | Bullets | Figure | Commands | Links | TextTable
