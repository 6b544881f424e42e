"""Colours, shapes and the quiet look of every picture.

One colour and one shape per model, everywhere. The colours are those of Okabe and Ito, darkened
where white paper asks for it: they stay apart for colour-blind readers. The names in capitals are
also known to ``report.css``, which exchanges them in the dark; a test keeps the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

INK = "#1f2933"
MUTED = "#5f6c7b"
GRID = "#e3e7eb"
RULE = "#9aa5b1"
ACCENT = "#2f7f86"

MODEL_COLOURS = {
    "teacher": "#c4500a",
    "dan_kd_ft": "#0b64a8",
    "dan_kd": "#3d9bd6",
    "dan_kd_private": "#b7629a",
    "dan_scratch": "#c98a00",
    "bilstm_kd": "#16886a",
    "cnn_kd": "#6b4fa0",
    "tfidf_lr": "#7b8794",
}
_OTHER_COLOURS = ("#8a6d3b", "#5b7f1e")
_SHAPES = {
    "teacher": "diamond",
    "dan_kd_ft": "circle",
    "dan_kd": "circle",
    "dan_kd_private": "triangle-up",
    "dan_scratch": "square",
    "bilstm_kd": "triangle-right",
    "cnn_kd": "triangle-down",
    "tfidf_lr": "cross",
}
# The shapes of Vega on a field from -1 to 1, for the marks beside words.
SHAPE_PATHS = {
    "circle": "M-.8 0A.8.8 0 1 1 .8 0A.8.8 0 1 1-.8 0Z",
    "square": "M-.7-.7H.7V.7H-.7Z",
    "cross": "M-.85-.3H-.3V-.85H.3V-.3H.85V.3H.3V.85H-.3V.3H-.85Z",
    "diamond": "M0-1L.8 0L0 1L-.8 0Z",
    "triangle-up": "M0-.85L.9.75H-.9Z",
    "triangle-down": "M0 .85L.9-.75H-.9Z",
    "triangle-right": "M.85 0L-.75 .9V-.9Z",
}
# Fonts of one width, so that what was measured when drawn is what the reader's browser shows.
FONT = "Arial, Helvetica, 'Liberation Sans', Arimo, sans-serif"


def colours(models: Iterable[str]) -> dict[str, str]:
    """Return the colour of each model; unknown ones take spare colours in order."""
    unknown = [model for model in dict.fromkeys(models) if model not in MODEL_COLOURS]
    spare = {model: _OTHER_COLOURS[i % len(_OTHER_COLOURS)] for i, model in enumerate(unknown)}
    return {**MODEL_COLOURS, **spare}


def shape(model: str) -> str:
    """Return the Vega shape of a model."""
    return _SHAPES.get(model, "square")


def config() -> dict[str, Any]:
    """Return the Vega-Lite config shared by all charts."""
    return {
        "background": "transparent",
        "font": FONT,
        "padding": 4,
        "view": {"stroke": None},
        "axis": {
            "domainColor": RULE,
            "gridColor": GRID,
            "labelColor": MUTED,
            "labelFontSize": 12,
            "labelPadding": 5,
            "tickColor": RULE,
            "tickSize": 4,
            "titleColor": MUTED,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 9,
        },
        "axisX": {"labelFlush": False},
        "axisY": {
            "domain": False,
            "ticks": False,
            "titleAlign": "left",
            "titleAngle": 0,
            "titleAnchor": "end",
            "titleBaseline": "bottom",
            "titleX": 0,
            "titleY": -10,
        },
        "legend": {"labelColor": INK, "labelFontSize": 12, "symbolSize": 80, "columnPadding": 14},
        "title": {"anchor": "start", "color": INK, "fontSize": 13, "offset": 26},
        "text": {"color": INK, "fontSize": 12},
    }
