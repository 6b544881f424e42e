"""The pictures: pure functions from a summary to one Altair chart each.

Every function returns ``None`` when the summary does not hold its part. Widths are those of the
whole picture in pixels, about: legends and labels are inside.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

import altair as alt

from dashboards import theme
from dashboards.drawing import (
    ABOUT,
    Chart,
    Row,
    data,
    finish,
    horizontal_bars,
    log_ticks,
    model_colour,
    model_names,
    place_labels,
    vega_list,
)
from dashboards.format import count, decimal, duration, one_line, rate, share, short_count, size
from dashboards.summary import TEACHER, Summary, number, part, result, rows, title

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_MOST_POINTS = 300
_AGAINST: dict[str, tuple[str, Callable[[float], str]]] = {
    "texts_per_second": ("texts per second", lambda speed: f"{rate(speed)} texts per second"),
    "bytes": ("bytes", size),
}
MOST_LABELS = 30


def accuracy_against_speed(
    summary: Summary, *, width: int = 1000, height: int = 360
) -> Chart | None:
    """Accuracy against texts per second, one labelled point per model (the paper's Figure 1)."""
    return accuracy_against(summary, "texts_per_second", width=width, height=height)


def accuracy_against(
    summary: Summary, key: Literal["texts_per_second", "bytes"], *, width: int, height: int
) -> Chart | None:
    """Accuracy against speed or size, one labelled point per model."""
    axis, write = _AGAINST[key]
    values: list[Row] = [
        {
            "model": str(row.get("model")),
            "title": title(summary, row.get("model")),
            "speed": number(row, key),
            "accuracy": number(row, "accuracy"),
            "spread": number(row, "accuracy_spread") or 0.0,
        }
        for row in rows(summary, "results")
        if number(row, "accuracy") is not None and (number(row, key) or 0) > 0
    ]
    if not values:
        return None
    # Labels of fast models stand in a column at the right; the plot is what they leave over.
    column = min(6.6 * max(len(row["title"]) for row in values) + 16, 0.36 * width)
    plot = width - 60 - column
    low, high = _accuracy_domain(values)
    speeds = [row["speed"] for row in values]
    left, right = math.log10(min(speeds) / 1.6), math.log10(max(speeds) * 1.4)
    for row in values:
        row["about"] = f"{row['title']}: {share(row['accuracy'])}, {write(row['speed'])}"
        row["low"] = row["accuracy"] - row["spread"]
        row["high"] = row["accuracy"] + row["spread"]
    to_accuracy = (high - low) / height
    place_labels(values, edge=right, to_speed=(right - left) / plot, to_accuracy=to_accuracy)
    # The axis's title stands above a label that the plot has no room for, not behind it.
    above = max((row["label_y"] for row in values if row["beside"]), default=low)
    models = [row["model"] for row in values]
    x = alt.X(
        "speed:Q",
        title=f"{axis}, log scale →",
        scale=alt.Scale(type="log", domain=[10**left, 10**right], nice=False),
        axis=alt.Axis(values=_ticks(speeds, 10**left, 10**right), format=".3~s", grid=True),
    )
    y = alt.Y(
        "accuracy:Q",
        title="accuracy",
        scale=alt.Scale(domain=[low, high], nice=False, zero=False),
        axis=alt.Axis(format="%", tickCount=6, titleY=-10 - max(0.0, (above - high) / to_accuracy)),
    )
    base = data(values)
    colour = model_colour(summary, models, legend=False)
    layers = [
        base.mark_rule(color=theme.RULE, strokeWidth=0.8, opacity=0.7).encode(
            x=x, y=y, x2="leader_x:Q", y2="leader_y:Q"
        ),
        base.mark_rule(strokeWidth=2).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        base.mark_point(filled=True, size=150, opacity=1).encode(
            x=x, y=y, color=colour, shape=_shape(summary, models), **ABOUT
        ),
        base.mark_text(align="left", baseline="middle", limit=column, clip=False).encode(
            x=alt.X("label_x:Q"), y=alt.Y("label_y:Q"), text="title:N"
        ),
    ]
    if number(result(summary, TEACHER), "accuracy") is not None:
        teacher = base.transform_filter(alt.datum.model == TEACHER)
        layers.insert(
            0,
            teacher.mark_rule(color=theme.RULE, strokeDash=[4, 4]).encode(
                y=y, x=alt.value(0), x2=alt.value(plot)
            ),
        )
    return finish(alt.layer(*layers).properties(width=plot, height=height))


def _ticks(values: Sequence[float], low: float, high: float) -> list[float]:
    """Return round ticks; where the axis is too short for two of them, its least and greatest."""
    ticks = log_ticks(low, high)
    least, greatest = min(values), max(values)
    if len(ticks) > 1:
        return ticks
    return [least, greatest] if greatest > 1.1 * least else [least]


def _accuracy_domain(values: Sequence[Row]) -> tuple[float, float]:
    low = min(row["accuracy"] - row["spread"] for row in values)
    high = max(row["accuracy"] + row["spread"] for row in values)
    margin = max(0.01, 0.15 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)


def _shape(summary: Summary, models: Sequence[str]) -> alt.Shape:
    names = [title(summary, model) for model in models]
    shapes = [theme.shape(model) for model in models]
    return alt.Shape("title:N", scale=alt.Scale(domain=names, range=shapes), legend=None)


def training_curves(
    summary: Summary,
    measure: Literal["dev_accuracy", "loss"],
    *,
    width: int = 480,
    height: int = 230,
) -> Chart | None:
    """`measure` by update, one line per model and seed; a dot marks the checkpoint kept."""
    lines: list[Row] = []
    kept: list[Row] = []
    for index, run in enumerate(rows(summary, "training")):
        model = str(run.get("model"))
        name = title(summary, model)
        about = f"{name}, seed {run.get('seed')}"
        best = number(run, "best_update")
        for point in _thinned(rows(run, "points"), best):
            row: Row = {
                "model": model,
                "title": name,
                "run": index,
                "update": number(point, "update"),
                "value": number(point, measure),
                "about": about,
            }
            if row["update"] is None or row["value"] is None:
                continue
            lines.append(row)
            if row["update"] == best:
                value = share(row["value"]) if measure != "loss" else decimal(row["value"])
                kept.append({**row, "about": f"{about}: update {count(best)} kept, {value}"})
    if not lines:
        return None
    models = [
        model for model in model_names(summary) if any(row["model"] == model for row in lines)
    ]
    colour = model_colour(summary, models, legend=True)
    y = alt.Y(
        "value:Q",
        title="accuracy on dev" if measure == "dev_accuracy" else "training loss",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(format="%" if measure == "dev_accuracy" else "~g", tickCount=5),
    )
    x = alt.X("update:Q", title="update →", axis=alt.Axis(format="~s", grid=False, tickCount=6))
    curves = (
        data(lines)
        .mark_line(strokeWidth=1.6, opacity=0.8)
        .encode(x=x, y=y, color=colour, detail="run:N", **ABOUT)
    )
    dots = data(kept).mark_point(filled=True, size=60, opacity=1)
    layered = alt.layer(curves, dots.encode(x=x, y=y, color=colour, **ABOUT))
    return finish(layered.properties(width=width - 60, height=height))


def _thinned(points: Sequence[Summary], best: float | None) -> list[Summary]:
    """Keep at most `_MOST_POINTS` of a run, the first, the last and the best among them."""
    step = math.ceil(len(points) / _MOST_POINTS) or 1
    last = len(points) - 1
    return [
        point
        for index, point in enumerate(points)
        if index % step == 0 or index == last or point.get("update") == best
    ]


def reliability(
    summary: Summary, when: Literal["before", "after"], *, width: int = 400
) -> Chart | None:
    """Accuracy against confidence of the student, `when` scaling; below it, texts per bin."""
    return reliability_of(part(summary, "calibration"), when, width=width)


def reliability_of(
    calibration: Summary, when: Literal["before", "after"], *, width: int = 400
) -> Chart | None:
    """Accuracy against confidence of any model, from its bins before and after scaling."""
    values = _bins(calibration, when)
    if not values:
        return None
    everything = [*_bins(calibration, "before"), *_bins(calibration, "after")]
    floor = min(min(row["low"], row["accuracy"], row["confidence"]) for row in everything)
    floor = math.floor(10 * floor + 1e-9) / 10
    plot = width - 60
    scale = alt.Scale(domain=[floor, 1], nice=False, zero=False)
    axis = alt.Axis(format="%", tickCount=5)
    x = alt.X("confidence:Q", title=None, scale=scale, axis=alt.Axis(labels=False, tickCount=5))
    y = alt.Y("accuracy:Q", title="share right", scale=scale, axis=axis)
    base = data(values)
    corners = data([{"confidence": floor, "accuracy": floor}, {"confidence": 1, "accuracy": 1}])
    above = alt.layer(
        corners.mark_line(color=theme.RULE, strokeDash=[4, 4], strokeWidth=1).encode(x=x, y=y),
        base.mark_rule(color=theme.ACCENT, strokeWidth=6, opacity=0.25).encode(
            x=x, y=y, y2="confidence:Q"
        ),
        base.mark_line(color=theme.ACCENT, strokeWidth=1.5).encode(x=x, y=y),
        base.mark_point(color=theme.ACCENT, filled=True, size=60, opacity=1).encode(
            x=x, y=y, **ABOUT
        ),
    ).properties(width=plot, height=plot * 0.75)
    below = (
        base.mark_rect(color=theme.ACCENT, opacity=0.55, xOffset=1)
        .encode(
            x=alt.X("low:Q", title="confidence →", scale=scale, axis=axis),
            x2="high:Q",
            y2="zero:Q",
            y=alt.Y("count:Q", title="texts", axis=alt.Axis(tickCount=2, format=",d")),
            **ABOUT,
        )
        .properties(width=plot, height=56)
    )
    return finish(alt.vconcat(above, below, spacing=26))


def _bins(calibration: Summary, when: str) -> list[Row]:
    """The bins of one side that hold a text and all their numbers."""
    keys = ("low", "high", "confidence", "accuracy", "count")
    found: Iterable[Row] = (
        {k: number(b, k) for k in keys} for b in rows(calibration, when, "bins")
    )
    return [
        {
            **row,
            "zero": 0,
            "about": f"{count(row['count'])} texts with confidence {share(row['confidence'])}: "
            f"{share(row['accuracy'])} right",
        }
        for row in found
        if row["count"] and None not in row.values()
    ]


def confusion(summary: Summary, model: str, *, width: int = 420) -> Chart | None:
    """The confusion matrix of `model`: truth down, answer across, shade by share of the row.

    Labels beyond `MOST_LABELS` cannot be read in a picture: then there is none.
    """
    labels = [one_line(label, limit=24) for label in part(summary, "confusion").get("labels") or []]
    matrix = part(summary, "confusion", "models").get(model)
    if not labels or not matrix or len(labels) > MOST_LABELS:
        return None
    cells: list[Row] = []
    for (i, truth), (j, answer) in itertools.product(enumerate(labels), repeat=2):
        total, n = sum(matrix[i]), matrix[i][j]
        if n:
            about = f"{truth} taken for {answer}" if i != j else f"{truth} found"
            about += f": {count(n)} of {count(total)} ({share(n / total)})"
            cells.append({"i": i, "j": j, "n": n, "share": n / total, "about": about})
    longest = 6.4 * max(len(label) for label in labels)
    side = min(110.0, (width - longest - 70) / len(labels))
    # Positions, not names, are the domain: labels that are equal once shortened stay apart.
    names = f"{vega_list(labels)}[datum.value]"
    across = alt.Axis(orient="top", labelAngle=-45 if side < longest + 8 else 0, labelExpr=names)
    # The shared look writes the title of the vertical axis above it, where labels stand here.
    down = alt.Axis(
        labelExpr=names,
        titleAlign="right",
        titleBaseline="middle",
        titleX=-longest - 14,
        titleY=side * len(labels) / 2,
    )
    positions = alt.Scale(domain=list(range(len(labels))))
    x = alt.X("j:O", title="answer →", axis=across, scale=positions)
    y = alt.Y("i:O", title="← truth", axis=down, scale=positions)
    shade = theme.colours(model_names(summary)).get(model, theme.ACCENT)
    base = data(cells).encode(x=x, y=y)
    layers: list[alt.Chart] = [
        base.mark_rect(color=shade, stroke=theme.GRID, strokeWidth=1).encode(
            fillOpacity=alt.Opacity(
                "share:Q", scale=alt.Scale(domain=[0, 1], range=[0.03, 1]), legend=None
            ),
            **ABOUT,
        )
    ]
    if side >= 24:
        small = base.mark_text(fontSize=12 if side > 40 else 10)
        dark = alt.datum.share > 0.5
        layers += [
            small.transform_filter(dark).encode(text="n:N", color=alt.value("#ffffff")),
            small.transform_filter(~dark).encode(text="n:N", color=alt.value(theme.INK)),
        ]
    span = side * len(labels)
    return finish(alt.layer(*layers).properties(width=span, height=span))


# What n-grams are called by their number of tokens.
ORDER_NAMES = {1: "single words", 2: "pairs", 3: "triples"}


def ngrams_per_order(summary: Summary, *, width: int = 440) -> Chart | None:
    """How many rows of the vocabulary are single words, pairs, ..."""
    found = [(number(r, "order"), number(r, "rows")) for r in rows(summary, "ngrams", "per_order")]
    return horizontal_bars(
        [
            (ORDER_NAMES.get(int(order), f"{order:.0f} words"), value, short_count(value))
            for order, value in found
            if order is not None and value is not None
        ],
        axis="rows of the vocabulary →",
        width=width,
    )


def coverage(summary: Summary, *, width: int = 440, height: int = 150) -> Chart | None:
    """Which share of the n-grams of unseen texts a vocabulary of each size knows."""
    values: list[Row] = [
        {
            "size": number(row, "size"),
            "share": number(row, "share"),
            "about": f"{count(number(row, 'size'))} rows know {share(number(row, 'share'))}",
        }
        for row in rows(summary, "ngrams", "coverage")
        if (number(row, "size") or 0) > 0 and number(row, "share") is not None
    ]
    if not values:
        return None
    span = min(row["size"] for row in values), max(row["size"] for row in values)
    x = alt.X(
        "size:Q",
        title="size of the vocabulary, log scale →",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~s", grid=False, values=log_ticks(*span)),
    )
    y = alt.Y(
        "share:Q",
        title="n-grams known",
        scale=alt.Scale(domainMin=0),
        axis=alt.Axis(format="%", tickCount=5),
    )
    line = data(values).mark_line(
        color=theme.ACCENT, point=alt.OverlayMarkDef(color=theme.ACCENT, size=45, opacity=1)
    )
    return finish(line.encode(x=x, y=y, **ABOUT).properties(width=width - 60, height=height))


def stage_seconds(summary: Summary, *, width: int = 440) -> Chart | None:
    """The work in each stage, also that done by earlier runs."""
    return _stages(summary, "seconds", duration, "work →", width)


def stage_bytes(summary: Summary, *, width: int = 440) -> Chart | None:
    """What each stage put into the store."""
    return _stages(summary, "bytes", size, "size in the store →", width)


def _stages(
    summary: Summary, key: str, write: Callable[[float | None], str], axis: str, width: int
) -> Chart | None:
    found = [(one_line(r.get("stage"), limit=20), number(r, key)) for r in rows(summary, "stages")]
    bars = [(name, value, write(value)) for name, value in found if value is not None]
    return horizontal_bars(bars, axis=axis, width=width)
