"""The blocks of a page, independent of Markdown and HTML.

Paragraphs, lists and captions may contain `code` in backquotes and **strong** text between double asterisks. Headings, links
and tables are plain text.
"""

from dataclasses import dataclass
from pathlib import Path

from reports.render.text_table import TextTable


@dataclass(frozen=True)
class Heading:
    """A heading; links can point to its anchor."""

    level: int  # 1 is the page's title
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list; a tuple is an item with a list of its own: (item, [item, ...])."""

    items: list[str | tuple[str, list[str]]]


@dataclass(frozen=True)
class Figure:
    """A figure: `file` is its SVG, with the PNG beside it."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Commands:
    """Shell commands."""

    lines: list[str]


@dataclass(frozen=True)
class Links:
    """Links as (text, target): an anchor of the page, or a file beside it."""

    items: list[tuple[str, str]]


PageBlock = Heading | Paragraph | Bullets | Figure | Commands | Links | TextTable
