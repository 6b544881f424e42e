"""Tables and lists of facts in plain text, by the base install alone."""

from __future__ import annotations

import textwrap
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def display_width(text: str) -> int:
    """Columns that a text takes in a terminal: two for wide characters, none for marks."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def left(text: str, width: int) -> str:
    """A text with spaces after it."""
    return text + " " * max(0, width - display_width(text))


def right(text: str, width: int) -> str:
    """A text with spaces before it."""
    return " " * max(0, width - display_width(text)) + text


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(display_width, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(
            [left(row[0], widths[0]), *map(right, row[1:], widths[1:])],
        ).rstrip()
        for row in [headings, *rows]
    ]


def facts(pairs: Sequence[tuple[str, str]], *, width: int) -> list[str]:
    """Lines of names and what is to be said of them, wrapped behind the names."""
    indent = max(display_width(name) for name, _ in pairs) + 2
    found = []
    for name, value in pairs:
        wrapped = textwrap.wrap(value, max(20, width - indent), break_on_hyphens=False) or [""]
        found.append(left(name, indent) + wrapped[0])
        found += [" " * indent + line for line in wrapped[1:]]
    return found
