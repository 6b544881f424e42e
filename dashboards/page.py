"""The frame of a page that needs nothing but itself.

No script, font, picture or address outside of it: a content security policy forbids them even to a
text that would get past the escaping.
"""

from __future__ import annotations

from importlib import resources

from dashboards import highlighting
from dashboards.markup import Html, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, style: str, *parts: str | None) -> str:
    """Return a page as one HTML document.

    Args:
        title: Of the window.
        style: File of the package with the page's own style.
        parts: Of its body.
    """
    # From the package itself: written by us, so it is markup already.
    own = resources.files("dashboards").joinpath(style).read_text("utf-8")
    head = tag(
        "head",
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        tag("style", Html(own + highlighting.style())),
    )
    return f'<!doctype html>\n<html lang="en">{head}{tag("body", *parts)}</html>\n'
