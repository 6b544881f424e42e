"""A text with its words marked by how much they spoke for an answer.

Not by colour alone: what speaks for it is underlined, what speaks against it has a dashed line, and
the number appears beside the pointer. The style is in ``highlighting.css``.
"""

from __future__ import annotations

import math
from importlib import resources
from typing import TYPE_CHECKING, TypeAlias

from dashboards import format as fmt
from dashboards.markup import Html, join, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

Word: TypeAlias = tuple[int, int, float]
"""Where a word begins and ends, in characters, and what it adds."""

STEPS = 4
# Weaker than this share of the strongest word is as good as nothing.
_LEAST = 0.06


def style() -> Html:
    """Return the rules that marked texts need."""
    # From the package itself: written by us, so it is markup already.
    return Html(resources.files("dashboards").joinpath("highlighting.css").read_text("utf-8"))


def step(value: float, strongest: float) -> int:
    """Return how strongly to mark a word: 0 not at all, else 1 to `STEPS`, less than 0 if against.

    Args:
        value: What it adds.
        strongest: The largest magnitude in the text.
    """
    share = abs(value) / strongest if strongest > 0 else 0.0
    if share < _LEAST:
        return 0
    return max(1, math.ceil(share * STEPS)) * (1 if value > 0 else -1)


def strongest(words: Sequence[Word]) -> float:
    """Return the largest magnitude among some words; 0 if there are none."""
    return max((abs(value) for *_, value in words), default=0.0)


def marked(text: str, words: Sequence[Word]) -> Html:
    """Return a text with its words marked; what cannot be shown is replaced, one for one.

    Args:
        text: The text, which positions are of.
        words: In order, not overlapping; one that does not fit the text is left out.
    """
    most = strongest(words)
    parts: list[str | None] = []
    at = 0
    for start, end, value in words:
        if not at <= start < end <= len(text):
            continue
        strength = step(value, most)
        if not strength:
            continue
        side = "for" if strength > 0 else "against"
        parts += [
            text[at:start],
            tag(
                "mark",
                text[start:end],
                class_=f"{side} s{abs(strength)}",
                title=fmt.signed(value),
            ),
        ]
        at = end
    parts.append(text[at:])
    return join(parts)


def legend(for_words: str, against_words: str) -> Html:
    """Return the line that says what the marks mean."""
    return tag(
        "p",
        tag("mark", for_words, class_="for s3"),
        " ",
        tag("mark", against_words, class_="against s3"),
        " The stronger the colour, the more.",
        class_="marks",
    )
