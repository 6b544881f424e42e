"""The section on the teacher: whether it can be believed, and what it made of the corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt

from dashboards import charts, theme
from dashboards import format as fmt
from dashboards.blocks import Cell, figure, measured, pair, quiet, table
from dashboards.drawing import ABOUT, Chart, Row, data, finish, vega_list
from dashboards.markup import Html, join, tag
from dashboards.summary import Summary, number, part, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

# A class is hardly seen where its share of the corpus is below this part of its share of train.
HARDLY = 0.1
_MOST_NAMED = 5


def teacher(summary: Summary) -> Html:
    """The teacher's calibration, its doubts, and the classes it sees in the corpus."""
    shown = [_calibration(summary), _corpus(summary)]
    if not any(shown):
        return quiet("Nothing is known of the teacher: there are no logits in this summary.")
    return join(shown)


def remarks(summary: Summary) -> list[str]:
    """Return what is to be known of the teacher, a plain sentence each, warnings first."""
    found = [_hardly_seen(summary), _errors(summary), _doubts(summary)]
    return [sentence for sentence in (*found, _refused(summary), _chosen(summary)) if sentence]


def _splits(summary: Summary) -> list[Summary]:
    return rows(summary, "teacher", "calibration", "splits")


def _calibration(summary: Summary) -> Html | None:
    splits = _splits(summary)
    if not splits:
        return None
    found = splits[-1]
    body: list[list[Cell]] = [
        [
            _name(row),
            _covered(row),
            measured(row, "accuracy", fmt.share),
            measured(part(row, "before"), "ece", fmt.share),
            measured(part(row, "after"), "ece", fmt.share),
            measured(part(row, "before"), "noise", fmt.share),
        ]
        for row in splits
    ]
    heads = ["Split", "With logits", "Accuracy", "Off by", "With temperature", "By chance"]
    return join(
        [
            tag(
                "p",
                "A student learns the teacher's probabilities, so they should be honest. ",
                _temperature(summary),
            ),
            table(heads, body),
            tag(
                "p",
                "Off by: expected calibration error over 15 bins of equal width. By chance: the "
                "error that honest probabilities would show on so few texts.",
                class_="note",
            ),
            pair(
                figure(
                    "teacher-before",
                    charts.reliability_of(found, "before"),
                    f"As it is, on {_name(found)}. Below the diagonal the teacher is too sure.",
                ),
                figure(
                    "teacher-after",
                    charts.reliability_of(found, "after"),
                    f"With the temperature, on {_name(found)}. The bars below count the texts.",
                ),
            ),
        ]
    )


def _temperature(summary: Summary) -> Html:
    found = part(summary, "teacher", "calibration")
    if number(found, "temperature") is None:
        return join(
            [
                "The teacher is right on every text of dev, as one is that has learned from them: "
                "no temperature can be fitted there, and what dev says of this teacher is not to "
                "be relied on."
            ]
        )
    return join(
        [
            "The temperature that makes the labels of dev most likely is ",
            measured(found, "temperature", fmt.decimal),
            ": above 1 the teacher is too sure, below it not sure enough. Nothing is divided by "
            "it; students learn from the logits as they are.",
        ]
    )


def _name(split: Summary) -> str:
    return fmt.one_line(split.get("split") or "held-out texts", limit=20)


def _covered(split: Summary) -> Html:
    every = number(split, "of")
    of = f" of {fmt.count(every)}" if every and every != number(split, "rows") else None
    return join([measured(split, "rows", fmt.count), of])


def _corpus(summary: Summary) -> Html | None:
    found = _classes(summary)
    warning, sentences = _hardly_seen(summary), [_refused(summary), _chosen(summary)]
    doubts = figure("doubts", confidence(summary), _doubts(summary) or "")
    balance = figure(
        "balance",
        class_balance(summary),
        "Each class's share of the labels of train, and of the teacher's answers on the corpus.",
    )
    if not (found or doubts or any(sentences)):
        return None
    pictures = pair(doubts, balance) if doubts and balance else doubts or balance
    return join(
        [
            tag("h3", "What it made of the corpus"),
            *(tag("p", sentence) for sentence in sentences if sentence),
            tag("p", tag("strong", "Look here: "), warning) if warning else None,
            pictures,
            _balance_table(summary),
        ]
    )


def _classes(summary: Summary) -> list[Row]:
    """Every class with its rows and its share of train and of the corpus."""
    found = rows(summary, "teacher", "classes")
    train, corpus = (sum(number(row, key) or 0 for row in found) for key in ("train", "predicted"))
    if not train or not corpus:
        return []
    kept = part(summary, "teacher", "chosen").get("kept")
    after = kept if isinstance(kept, list) and len(kept) == len(found) else [None] * len(found)
    return [
        {
            "label": fmt.one_line(row.get("label"), limit=40),
            "train": number(row, "train") or 0,
            "predicted": number(row, "predicted") or 0,
            "train_share": (number(row, "train") or 0) / train,
            "corpus_share": (number(row, "predicted") or 0) / corpus,
            "kept": number({"kept": learned}, "kept"),
        }
        for row, learned in zip(found, after, strict=True)
    ]


def _balance_table(summary: Summary) -> Html | None:
    found = _classes(summary)
    if not found:
        return None
    # Where they are too many to be read, those that the corpus has least of.
    shown = sorted(found, key=lambda row: row["corpus_share"] / (row["train_share"] or 1))
    left_out = len(found) - charts.MOST_LABELS
    shown = found if left_out <= 0 else shown[: charts.MOST_LABELS]
    chosen = any(row["kept"] is not None for row in found)
    heads = ["Class", "Train", "Share", "Corpus", "Share", *(["Learned from"] if chosen else [])]
    body: list[list[Cell]] = [
        [
            tag("bdi", row["label"]),
            measured(row, "train", fmt.count),
            measured(row, "train_share", fmt.share),
            measured(row, "predicted", fmt.count),
            measured(row, "corpus_share", fmt.share),
            *([measured(row, "kept", fmt.count)] if chosen else []),
        ]
        for row in shown
    ]
    more = quiet(f"{left_out:,} more are in summary.json.") if left_out > 0 else None
    return join([table(heads, body), more])


def _hardly_seen(summary: Summary) -> str | None:
    """Say which classes of the task the teacher sees hardly ever in the corpus."""
    found = _classes(summary)
    rare = [row for row in found if row["corpus_share"] < HARDLY * row["train_share"]]
    if not rare:
        return None
    named = [
        f"{row['label']} ({fmt.share(row['corpus_share'], digits=2)} of the corpus, "
        f"{fmt.share(row['train_share'])} of train)"
        if row["predicted"]
        else f"{row['label']} (never)"
        for row in rare[:_MOST_NAMED]
    ]
    more = f" and {len(rare) - _MOST_NAMED:,} more" if len(rare) > _MOST_NAMED else ""
    return (
        f"The teacher hardly sees {', '.join(named)}{more} in the corpus, so that students learn "
        "little of it: add texts of this kind."
    )


def _errors(summary: Summary) -> str | None:
    splits = _splits(summary)
    if not splits:
        return None
    before, after = (number(part(splits[-1], when), "ece") for when in ("before", "after"))
    temperature = number(part(summary, "teacher", "calibration"), "temperature")
    sentence = f"The teacher's confidence on {_name(splits[-1])} is off by {fmt.share(before)}"
    if temperature is None or after is None:
        return f"{sentence}."
    return f"{sentence}, with the temperature {fmt.decimal(temperature)} by {fmt.share(after)}."


def _doubts(summary: Summary) -> str | None:
    found = part(summary, "teacher", "confidence")
    unsure, below = number(found, "unsure"), number(found, "unsure_below")
    every = sum(_counts(found))
    if unsure is None or below is None or not every:
        return None
    return (
        f"The teacher is less than {fmt.share(below, digits=0)} sure of {fmt.count(unsure)} of "
        f"{fmt.count(every)} corpus texts ({fmt.share(unsure / every)})."
    )


def _refused(summary: Summary) -> str | None:
    found = part(summary, "teacher", "quarantined")
    reasons = [(fmt.one_line(reason), number(found, reason) or 0) for reason in found]
    every = sum(count for _, count in reasons)
    if not every:
        return None
    told = ", ".join(f"{reason} ({fmt.count(count)})" for reason, count in reasons)
    return f"{fmt.count(every)} texts have no logits and are in quarantine: {told}."


def _chosen(summary: Summary) -> str | None:
    found = part(summary, "teacher", "chosen")
    sums = {
        key: sum(value for value in found[key] if isinstance(value, int | float))
        for key in ("labelled", "small_margin", "over_share", "kept")
        if isinstance(found.get(key), list)
    }
    if len(sums) < 4:
        return None
    least = number(part(found, "settings"), "least_margin")
    margin = f" below {fmt.decimal(least)}" if least is not None else ""
    return (
        f"Students learn from {fmt.count(sums['kept'])} of {fmt.count(sums['labelled'])} labelled "
        f"corpus texts: {fmt.count(sums['small_margin'])} were left out for their margin{margin}, "
        f"{fmt.count(sums['over_share'])} because their class has its share."
    )


def _counts(found: Summary) -> list[float]:
    counts = found.get("counts")
    values = counts if isinstance(counts, list) else []
    return [number({"n": value}, "n") or 0.0 for value in values]


def confidence(summary: Summary, *, width: int = 440, height: int = 190) -> Chart | None:
    """Share of the corpus by the teacher's greatest probability; doubtful texts stand out."""
    found = part(summary, "teacher", "confidence")
    counts, below = _counts(found), number(found, "unsure_below") or 0.0
    every = sum(counts)
    if not every:
        return None
    first = next(i for i, count in enumerate(counts) if count)
    values: list[Row] = [
        {
            "low": i / len(counts),
            "high": (i + 1) / len(counts),
            "middle": (i + 0.5) / len(counts),
            "share": count / every,
            "zero": 0,
            "written": f"{100 * count / every:.{0 if count >= 0.1 * every else 1}f}",
            "colour": theme.MODEL_COLOURS["teacher"]
            if (i + 0.5) / len(counts) < below
            else theme.ACCENT,
            "about": f"{fmt.count(count)} texts ({fmt.share(count / every)}) from "
            f"{i / len(counts):.0%} to {(i + 1) / len(counts):.0%} sure",
        }
        for i, count in enumerate(counts)
        if i >= first
    ]
    scale = alt.Scale(domain=[first / len(counts), 1], nice=False, zero=False)
    x = alt.X(
        "low:Q",
        title="greatest probability →",
        scale=scale,
        axis=alt.Axis(format="%", grid=False, tickCount=5),
    )
    y = alt.Y(
        "share:Q", title="% of the corpus", axis=alt.Axis(labels=False, grid=False, ticks=False)
    )
    base = data(values)
    bars = base.mark_rect(opacity=0.85, xOffset=1).encode(
        x=x, x2="high:Q", y=y, y2="zero:Q", color=alt.Color("colour:N", scale=None), **ABOUT
    )
    labels = base.mark_text(dy=-8, fontSize=10).encode(
        x=alt.X("middle:Q", scale=scale), y=y, text="written:N"
    )
    return finish(alt.layer(bars, labels).properties(width=width - 40, height=height))


def class_balance(summary: Summary, *, width: int = 440) -> Chart | None:
    """Each class's share of train and of the corpus, two bars a class."""
    found = _classes(summary)
    if not found or len(found) > charts.MOST_LABELS:
        return None
    names = [fmt.one_line(row["label"], limit=24) for row in found]
    parts: Sequence[tuple[str, str, str]] = (
        ("train", "train_share", theme.RULE),
        ("corpus", "corpus_share", theme.ACCENT),
    )
    values: list[Row] = [
        {
            "place": place,
            "of": of,
            "share": row[key],
            "written": fmt.share(row[key]),
            "about": f"{names[place]}: {fmt.share(row[key])} of {of}",
        }
        for place, row in enumerate(found)
        for of, key, _ in parts
    ]
    y = alt.Y(
        "place:O",
        title=None,
        axis=alt.Axis(labelExpr=f"{vega_list(names)}[datum.value]", labelColor=theme.INK),
    )
    x = alt.X(
        "share:Q",
        title="share of the texts →",
        scale=alt.Scale(zero=True, nice=False),
        axis=alt.Axis(labels=False, ticks=False, grid=False, domain=False, titleAnchor="start"),
    )
    colour = alt.Color(
        "of:N",
        scale=alt.Scale(domain=[of for of, _, _ in parts], range=[c for _, _, c in parts]),
        legend=alt.Legend(orient="bottom", title=None),
    )
    base = data(values).encode(x=x, y=y, yOffset=alt.YOffset("of:N", sort=["train", "corpus"]))
    drawn = alt.layer(
        base.mark_bar(cornerRadiusEnd=2).encode(color=colour, **ABOUT),
        base.mark_text(align="left", dx=5, fontSize=11).encode(text="written:N"),
    )
    plot = width - 6.6 * max(map(len, names)) - 70
    return finish(drawn.properties(width=plot, height=38 * len(found)))
