"""Builds HTML so that a text cannot become markup by accident.

A plain string is escaped wherever it is put; only `Html` goes in as it is, and only the functions
here and the picture makers make `Html`.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from dashboards.format import clean

if TYPE_CHECKING:
    from collections.abc import Iterable


class Html(str):
    """A string that is markup already."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return `value` as escaped text that is safe in elements and in quoted attributes."""
    return Html(html.escape(clean(value)))


def join(children: Iterable[str | None], *, between: str = "") -> Html:
    """Return `children` in a row, escaped unless they are `Html`; ``None`` is nothing."""
    parts = (child if isinstance(child, Html) else text(child) for child in children if child)
    return Html(text(between).join(parts))


def tag(name: str, *children: str | None, **attributes: object) -> Html:
    """Return one element; ``class_`` stands for ``class``, ``aria_label`` for ``aria-label``."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")
