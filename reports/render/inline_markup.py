"""Single-line texts with `code` and **strong** spans."""

import re
from collections.abc import Callable, Iterator, Sequence

_SPANS = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<strong>.+?)\*\*")


def split_spans(prose: str) -> Iterator[tuple[str, str]]:
    """Split a text into spans, each with its kind: "code", "strong" or "plain"."""
    end = 0
    for match in _SPANS.finditer(prose):
        if match.start() > end:
            yield "plain", prose[end : match.start()]
        yield str(match.lastgroup), match[match.lastgroup or 0]
        end = match.end()
    if end < len(prose):
        yield "plain", prose[end:]


def single_line(text: str) -> str:
    """Replace line breaks by spaces and drop control characters: causes of failures come from programs."""
    return "".join(filter(str.isprintable, " ".join(text.split())))


def escape_each(texts: Sequence[str], escape: Callable[[str], str]) -> list[str]:
    """Escape each text as a single line, all in one call, since a report has a hundred thousand entries.

    `escape` must work line by line and keep line breaks.
    """
    lines = "\n".join(texts)
    if not _one_line_each(lines, len(texts)):
        lines = "\n".join(map(single_line, texts))
    return escape(lines).split("\n")


def _one_line_each(lines: str, n: int) -> bool:
    """Whether `single_line` would leave each of n lines unchanged."""
    ends = lines.startswith(" ") or lines.endswith(" ") or " \n" in lines or "\n " in lines
    return not ends and "  " not in lines and lines.count("\n") == n - 1 and lines.replace("\n", "").isprintable()
