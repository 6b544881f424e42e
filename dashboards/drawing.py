"""What the pictures have in common: data, theme, colours, bars and labels that stay apart."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import altair as alt

from dashboards import theme
from dashboards.layout import apart
from dashboards.summary import Summary, rows, title, titles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.VConcatChart | alt.FacetChart
Row: TypeAlias = dict[str, Any]

# What a reader sees on pointing at a mark; in a static picture the description becomes its <title>.
ABOUT: dict[str, Any] = {"description": "about:N", "tooltip": "about:N"}


def data(values: Iterable[Row]) -> alt.Chart:
    """Return a chart on rows that are part of the picture."""
    return alt.Chart(alt.InlineData(values=list(values)))


def finish(chart: Chart) -> Chart:
    """Return `chart` with the look that all pictures share."""
    chart.config = _look()
    return chart


@cache
def _look() -> alt.Config:
    """Checked against the schema once, not for every picture: half of what a picture takes."""
    return alt.Config.from_dict(theme.config())


def model_names(summary: Summary) -> list[str]:
    """Return the models of results and training in order: what colours are given out by."""
    trained = (str(run.get("model")) for run in rows(summary, "training"))
    return list(dict.fromkeys([*titles(summary), *trained]))


def model_colour(summary: Summary, models: Sequence[str], *, legend: bool) -> alt.Color:
    """Return the colour by model, the same everywhere."""
    colours = theme.colours(model_names(summary))
    names = [title(summary, model) for model in models]
    return alt.Color(
        "title:N",
        scale=alt.Scale(domain=names, range=[colours[model] for model in models]),
        legend=alt.Legend(orient="bottom", columns=3, title=None) if legend else None,
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times each power of ten in range, the powers alone if crowded."""
    powers = [10.0**power for power in range(-3, 13)]
    ticks = [step * power for power in powers for step in (1, 2, 5) if low <= step * power <= high]
    return ticks if len(ticks) <= 6 else [tick for tick in ticks if tick in powers]


def place_labels(values: list[Row], *, edge: float, to_speed: float, to_accuracy: float) -> None:
    """Give each row the place of its label, in data units: no two overlap.

    `edge` is the right end of the speed axis (log10); the other two turn pixels into data units. A
    point far from that end has its label beside it, where there is room.
    """
    groups: dict[bool, list[Row]] = {True: [], False: []}
    for row in values:
        row["beside"] = (edge - math.log10(row["speed"])) / to_speed > 200
        groups[row["beside"]].append(row)
    for beside, group in groups.items():
        if not group:
            continue
        group.sort(key=lambda row: (row["accuracy"], row["title"]))
        wanted = [row["accuracy"] / to_accuracy for row in group]
        if beside:
            # Never below the point: other points of like accuracy are there.
            places = [wanted[0] + 15]
            for wish in wanted[1:]:
                places.append(max(wish + 15, places[-1] + 18))
        else:
            places = apart(wanted, [18.0] * len(group))
        for row, place in zip(group, places, strict=True):
            start = math.log10(row["speed"]) if beside else edge
            row["label_y"] = place * to_accuracy
            row["label_x"] = 10 ** (start + (10 if beside else 12) * to_speed)
            row["leader_x"] = row["speed"] if beside else 10 ** (edge + 8 * to_speed)
            row["leader_y"] = row["accuracy"] if beside else row["label_y"]


def vega_list(labels: Sequence[str]) -> str:
    """Labels as a Vega expression; everything but letters and digits is escaped by number."""
    safe = (
        "".join(c if c.isalnum() and c.isascii() else _utf16_escapes(c) for c in label)
        for label in labels
    )
    return "[" + ",".join(f"'{label}'" for label in safe) + "]"


def _utf16_escapes(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def horizontal_bars(
    bars: Sequence[tuple[str, float, str]], *, axis: str, width: int
) -> Chart | None:
    """Horizontal bars in the order given, each with its value written at its end."""
    if not bars:
        return None
    values: list[Row] = [
        {
            "place": i,
            "name": name,
            "value": value,
            "written": written,
            "about": f"{name}: {written}",
        }
        for i, (name, value, written) in enumerate(bars)
    ]
    names = 6.6 * max(len(name) for name, _, _ in bars) + 14
    written = 7 * max(len(text) for _, _, text in bars) + 10
    plot = width - names - written
    y = alt.Y(
        "place:O",
        title=None,
        axis=alt.Axis(
            labelExpr=f"{vega_list([name for name, _, _ in bars])}[datum.value]",
            labelColor=theme.INK,
        ),
    )
    x = alt.X(
        "value:Q",
        title=axis,
        scale=alt.Scale(zero=True, nice=False),
        axis=alt.Axis(labels=False, ticks=False, grid=False, domain=False, titleAnchor="start"),
    )
    base = alt.Chart(alt.InlineData(values=values)).encode(x=x, y=y)
    return finish(
        alt.layer(
            base.mark_bar(color=theme.ACCENT, size=14, cornerRadiusEnd=2).encode(**ABOUT),
            base.mark_text(align="left", dx=6).encode(text="written:N"),
        ).properties(width=plot, height=24 * len(bars))
    )
