"""Turns charts into pictures that stand on their own: inline SVG for the page, PNG for Prefect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import altair as alt
import vl_convert

from dashboards.png import packed

if TYPE_CHECKING:
    from dashboards.drawing import Chart

_VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
# Vega escapes <, > and " in names and texts: a tag ends at the first >, a value at the first ".
_TAG = re.compile(r"<[^>]*>")
_ATTRIBUTE = re.compile(r' ([\w:-]+)="([^"]*)"')
_CLIP = re.compile(r"\bclip\d+\b")
_DIGITS = re.compile(r"(\.\d\d)\d+")
_MARK = re.compile(r'<(path|line|rect)( aria-label="([^"]*)" role="graphics-symbol"[^>]*?)/>')
_EMPTY = re.compile(r'<path(?: class="background")? aria-hidden="true"[^>]*/>')
_UNUSED = {"xmlns", "xmlns:xlink", "font-family", "aria-roledescription", "pointer-events"}
_GEOMETRY = {"d", "transform", "x", "y", "x2", "y2", "width", "height"}


def to_svg(chart: Chart, *, name: str) -> str:
    """Return `chart` as an SVG element to be put into an HTML page.

    It works without scripts: the descriptions of marks become ``<title>`` elements, which browsers
    show on pointing. `name` (letters, digits, dashes) makes the ids unique on the page. The same
    chart gives the same bytes: Vega numbers its clip paths through the life of the process, here
    every picture starts at one.
    """
    svg: str = vl_convert.vegalite_to_svg(
        chart.to_dict(), vl_version=_VEGA_LITE, allowed_base_urls=[]
    )
    clips: dict[str, str] = {}

    def rename(found: re.Match[str]) -> str:
        return clips.setdefault(found[0], f"{name}-{len(clips) + 1}")

    def attribute(found: re.Match[str]) -> str:
        key, value = found[1], found[2]
        if key in _UNUSED:
            return ""
        if key in _GEOMETRY:
            value = _DIGITS.sub(r"\1", value)
        elif key in {"id", "clip-path"}:
            value = _CLIP.sub(rename, value)
        return f' {key}="{value}"'

    svg = _TAG.sub(lambda tag: _ATTRIBUTE.sub(attribute, tag[0]), svg)
    return _MARK.sub(r"<\1\2><title>\3</title></\1>", _EMPTY.sub("", svg))


def to_png(chart: Chart, *, scale: float) -> bytes:
    """Return `chart` as a PNG on white paper, `scale` pixels for each of its own."""
    spec = chart.to_dict()
    spec["config"] = {**spec["config"], "background": "white", "padding": 14}
    png: bytes = vl_convert.vegalite_to_png(
        spec, vl_version=_VEGA_LITE, scale=scale, allowed_base_urls=[]
    )
    return packed(png)
