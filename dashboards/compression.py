"""The section on the packaged model: what each step cost and gained, and how much could go."""

from __future__ import annotations

import altair as alt

from dashboards import format as fmt
from dashboards import theme
from dashboards.blocks import Cell, figure, measured, quiet, table
from dashboards.drawing import ABOUT, Chart, Row, data, finish, log_ticks
from dashboards.markup import Html, join, tag
from dashboards.summary import Summary, number, rows

_STEPS = {
    "fold": "Fold the first layer into the table",
    "prune": "Prune rows that matter least",
    "narrow": "Store rows of fewer columns",
    "quantise": "Store numbers in fewer bits",
    "calibrate": "Calibrate the confidence",
}
_RULES = {
    "contribution": ("contribution", theme.MODEL_COLOURS["dan_kd_ft"]),
    "train_count": ("count in train", theme.MODEL_COLOURS["teacher"]),
    "count": ("count in everything", theme.MODEL_COLOURS["dan_scratch"]),
    "order": ("single words first", theme.MODEL_COLOURS["tfidf_lr"]),
}
_LEAST = 1e-5


def package(summary: Summary) -> Html:
    """What each step from checkpoint to deployable model cost and gained."""
    found = rows(summary, "package", "steps")
    if not found:
        return quiet("No package: the student was not packaged in this run.")
    body: list[list[Cell]] = [
        [
            _STEPS.get(str(row.get("step")), fmt.one_line(row.get("step"))),
            measured(row, "max_logit_difference", fmt.decimal),
            measured(row, "accuracy", fmt.exact_share),
            measured(row, "agreement", fmt.exact_share),
            measured(row, "texts_per_second", fmt.rate),
            measured(row, "rows", fmt.count),
            measured(row, "bytes", fmt.size),
        ]
        for row in found
    ]
    heads = ["Step", "Largest change", "Accuracy", "Agreement", "Texts/s", "Rows", "Size"]
    note = (
        "All on dev. Largest change: of any logit of any text, against the step before. Agreement: "
        "share of texts labelled as before the first step."
    )
    return join(
        [
            table(heads, body),
            tag("p", note, class_="note"),
            figure("pruning", pruning_curve(summary), _caption(summary)),
        ]
    )


def pruning_curve(summary: Summary, *, width: int = 640, height: int = 230) -> Chart | None:
    """Accuracy by the share of rows that stay, one line a rule (the paper's pruning figure)."""
    values = _points(summary)
    if not values:
        return None
    shares = [row["share"] for row in values]
    names = [name for name, _ in _RULES.values()]
    drawn = [name for name in names if any(row["name"] == name for row in values)]
    colours = dict(_RULES.values())
    x = alt.X(
        "share:Q",
        title="share of the rows that stay, log scale →",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~%", grid=False, values=log_ticks(min(shares), max(shares))),
    )
    y = alt.Y(
        "accuracy:Q",
        title="accuracy on dev",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(format="%", tickCount=5),
    )
    colour = alt.Color(
        "name:N",
        scale=alt.Scale(domain=drawn, range=[colours[name] for name in drawn]),
        legend=alt.Legend(orient="bottom", columns=4, title=None, symbolType="stroke"),
    )
    base = data(values).encode(x=x, y=y, color=colour)
    return finish(
        alt.layer(
            base.mark_line(strokeWidth=1.8),
            base.mark_point(filled=True, size=40, opacity=1).encode(**ABOUT),
        ).properties(width=width - 60, height=height)
    )


def _points(summary: Summary) -> list[Row]:
    found: list[Row] = []
    for row in rows(summary, "package", "curve"):
        share, accuracy = number(row, "share"), number(row, "accuracy")
        if str(row.get("rule")) not in _RULES or accuracy is None or (share or 0) < _LEAST:
            continue
        name, _ = _RULES[str(row["rule"])]
        found.append(
            {
                "name": name,
                "share": share,
                "accuracy": accuracy,
                "about": f"{fmt.count(number(row, 'rows'))} rows by {name}: {fmt.share(accuracy)}",
            }
        )
    return found


def _caption(summary: Summary) -> str:
    """Say how to read the curve, and what the best rule keeps at 3 % of the rows."""
    said = "How much accuracy is left when the rows that matter least go, by the rule that says so."
    full, few = _best(summary, 1.0), _best(summary, 0.03)
    if full and few:
        said += f" 3\u00a0% of the rows keep {fmt.share(few / full)} of it."
    return said + " The axis of accuracy does not start at zero."


def _best(summary: Summary, share: float) -> float | None:
    points = [row for row in rows(summary, "package", "curve") if row.get("share") == share]
    return max((number(row, "accuracy") or 0.0 for row in points), default=None)
