"""Texts as pages hold them: on one line, with little markup of their own."""

import re
from collections.abc import Callable, Iterator, Sequence

_SPANS = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<strong>.+?)\*\*")


def split_spans(prose: str) -> Iterator[tuple[str, str]]:
    """The pieces of a prose text, each with its kind: "code", "strong" or "plain"."""
    end = 0
    for match in _SPANS.finditer(prose):
        if match.start() > end:
            yield "plain", prose[end : match.start()]
        yield str(match.lastgroup), match[match.lastgroup or 0]
        end = match.end()
    if end < len(prose):
        yield "plain", prose[end:]


def single_line(text: str) -> str:
    """Causes come from programs: line breaks become spaces, and control characters vanish."""
    return "".join(filter(str.isprintable, " ".join(text.split())))


def escape_each(texts: Sequence[str], escape: Callable[[str], str]) -> list[str]:
    """Each text on one line and escaped; `escape` may look as far as a line, and keeps line breaks.

    All are escaped at once: a report has a hundred thousand entries.
    """
    lines = "\n".join(texts)
    if not _one_line_each(lines, len(texts)):
        lines = "\n".join(map(single_line, texts))
    return escape(lines).split("\n")


def _one_line_each(lines: str, n: int) -> bool:
    """Whether `single_line` would leave every one of n lines as it is."""
    ends = lines.startswith(" ") or lines.endswith(" ") or " \n" in lines or "\n " in lines
    return not ends and "  " not in lines and lines.count("\n") == n - 1 and lines.replace("\n", "").isprintable()
