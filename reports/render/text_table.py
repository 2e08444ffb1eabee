"""A table of texts and links, independent of Markdown, LaTeX and HTML."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain

import pandas as pd

from reports.render.inline_markup import escape_each

ABSENT = "–"


@dataclass(frozen=True)
class Number:
    """A number with the anchor of its cell's runs, and whether it is the best of its block."""

    text: str
    anchor: str
    best: bool = False


@dataclass(frozen=True)
class Link:
    """A link out of the report's pages."""

    text: str
    address: str


Entry = str | Number | Link


def entry_text(entry: Entry) -> str:
    return entry if isinstance(entry, str) else entry.text


@dataclass(frozen=True)
class TextTable:
    """Rows of equal length under column titles; each position in `rules` begins a block.

    optional: the titles of columns that are hidden until a reader asks for them, which only HTML can do.
    """

    columns: list[str]
    rows: list[list[Entry]]
    rules: frozenset[int] = frozenset()
    optional: frozenset[str] = frozenset()

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Entry]], columns: Iterable[str] = (), rules: Iterable[int] = ()) -> "TextTable":
        """Build a table from rows by column title; `columns` come first, even without rows, and missing entries are blank."""
        rows = list(rows)
        titles = list(dict.fromkeys([*columns, *(title for row in rows for title in row)]))
        return cls(titles, [[row.get(title, "") for title in titles] for row in rows], frozenset(rules))

    def to_frame(self) -> pd.DataFrame:
        """A data frame of plain texts."""
        return pd.DataFrame([list(map(entry_text, row)) for row in self.rows], columns=self.columns, dtype=object)

    def render(self, escape: Callable[[str], str], dress: Callable[[Entry, str], str]) -> tuple[list[str], list[list[str]]]:
        """Render titles and rows in a format: `escape` escapes texts (see `escape_each`), `dress` turns them into entries."""
        entries = [*self.columns, *chain.from_iterable(self.rows)]
        texts = list(map(dress, entries, escape_each(list(map(entry_text, entries)), escape)))
        width = len(self.columns)
        titles, *rows = (texts[start : start + width] for start in range(0, len(texts), width))
        return titles, rows

    def drop_columns(self, unwanted: Callable[[str, list[Entry]], bool]) -> "TextTable":
        """Drop the columns for which `unwanted(title, entries)` is true."""
        by_column = zip(self.columns, range(len(self.columns)), strict=True)
        kept = [i for title, i in by_column if not unwanted(title, [row[i] for row in self.rows])]
        return replace(self, columns=[self.columns[i] for i in kept], rows=[[row[i] for i in kept] for row in self.rows])

    def essential(self) -> "TextTable":
        """The table without its optional columns."""
        return self.drop_columns(lambda title, _: title in self.optional) if self.optional else self

    def split(self, n: int) -> list["TextTable"]:
        """Split into tables of at most n rows; a table without rows is one part."""
        starts = range(0, max(len(self.rows), 1), n)
        return [
            TextTable(
                self.columns, self.rows[start : start + n], frozenset(r - start for r in self.rules if start < r < start + n)
            )
            for start in starts
        ]
