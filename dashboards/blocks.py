"""The parts that all sections of the report are made of: tables, figures, numbers, quiet lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from dashboards import theme
from dashboards.markup import Html, tag
from dashboards.summary import Summary, number
from dashboards.svg import to_svg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dashboards.drawing import Chart

Cell: TypeAlias = str | Html


def quiet(sentence: str) -> Html:
    """Return the line that stands where a part was not run."""
    return tag("p", sentence, class_="quiet")


def measured(row: Summary, key: str, write: Callable[[float | None], str]) -> Html:
    """Return the number under `key` as people read it, with the exact one for programs."""
    value = number(row, key)
    written = write(value)
    return tag("span", written) if value is None else tag("data", written, value=repr(value))


def table(headings: Sequence[str], body: Sequence[Sequence[Cell]]) -> Html:
    """Return a table: the first column names, the others hold numbers."""
    head = tag("tr", *(tag("th", heading, scope="col") for heading in headings))
    lines = (
        tag("tr", tag("th", cells[0], scope="row"), *(tag("td", cell) for cell in cells[1:]))
        for cells in body
    )
    return tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", *lines)),
        class_="scroll",
        # A box that scrolls must be reachable by keyboard.
        tabindex=0,
    )


def swatch(model: str, colour: str) -> Html:
    """Return the mark of a model as the charts draw it."""
    path = tag("path", d=theme.SHAPE_PATHS[theme.shape(model)], fill=colour)
    return tag("svg", path, viewBox="-1 -1 2 2", class_="swatch", aria_hidden="true")


def figure(
    name: str,
    picture: Chart | Html | None,
    caption: str | Html,
    *,
    narrow: Chart | Html | None = None,
    scroll: bool = False,
) -> Html | None:
    """Return a picture with its caption.

    On small screens `narrow` takes its place, or it keeps its size and can be scrolled, or else it
    shrinks.
    """
    if picture is None:
        return None
    if narrow is None:
        kind = "picture scroll" if scroll else "picture"
        shown = [tag("div", _svg(name, picture), class_=kind, tabindex=0 if scroll else None)]
    else:
        shown = [
            tag("div", _svg(name, picture), class_="picture wide"),
            tag("div", _svg(f"{name}-narrow", narrow), class_="picture narrow"),
        ]
    return tag("figure", *shown, tag("figcaption", caption))


def _svg(name: str, picture: Chart | Html) -> Html:
    # What Vega writes is escaped already; see dashboards.svg.
    return picture if isinstance(picture, Html) else Html(to_svg(picture, name=name))


def pair(left: Html | None, right: Html | None) -> Html:
    """Return two figures side by side, one above the other on small screens."""
    return tag("div", left, right, class_="pair")
