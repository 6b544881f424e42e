"""The sections of the report: each a function from the summary to markup.

A section whose part was not run is one quiet line that says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards import charts, theme
from dashboards import format as fmt
from dashboards.blocks import Cell, figure, measured, pair, quiet, swatch, table
from dashboards.change import change
from dashboards.compression import package
from dashboards.drawing import model_names
from dashboards.markup import Html, join, tag
from dashboards.mistakes import mistakes
from dashboards.provenance import environment, lineage, use, work
from dashboards.summary import Summary, number, part, rows, times_teacher, title
from dashboards.teacher import teacher

if TYPE_CHECKING:
    from collections.abc import Callable


def results(summary: Summary) -> Html:
    """Every model with its accuracy, speed and size, and the picture of the trade."""
    found = rows(summary, "results")
    if not found:
        return quiet("No results: the evaluation stage was not run.")
    student = part(summary, "headline").get("student")
    colours = theme.colours(model_names(summary))
    body: list[list[Cell]] = []
    for row in found:
        model = str(row.get("model"))
        name = join([swatch(model, colours[model]), title(summary, model)], between=" ")
        body.append(
            [
                tag("strong", name) if model == student else name,
                join(
                    [
                        measured(row, "accuracy", fmt.share),
                        _spread(row),
                    ],
                    between=" ",
                ),
                measured(row, "macro_f1", fmt.share),
                measured(row, "agreement", fmt.share),
                measured(row, "texts_per_second", fmt.rate),
                fmt.times(times_teacher(summary, row)),
                measured(row, "bytes", fmt.size),
            ]
        )
    heads = ["Model", "Accuracy", "Macro-F1", "Agreement", "Texts/s", "× teacher", "Size"]
    return join(
        [
            table(heads, body),
            tag("p", _how_measured(summary), class_="note"),
            figure(
                "speed",
                charts.accuracy_against_speed(summary),
                "Up is more accurate, right is faster. The dashed line is the accuracy of the "
                "teacher. The accuracy axis does not start at zero.",
                narrow=charts.accuracy_against_speed(summary, width=400, height=300),
            ),
        ]
    )


def _spread(row: Summary) -> Html | None:
    if number(row, "accuracy_spread") is None:
        return None
    seeds = fmt.count(number(row, "seeds"))
    spread = measured(row, "accuracy_spread", fmt.points)
    return tag("span", spread, class_="spread", title=f"standard deviation over {seeds} seeds")


def _how_measured(summary: Summary) -> Html:
    splits = part(summary, "splits")
    split = fmt.one_line(splits.get("evaluated_on") or "held-out", limit=20)
    many = number(splits, split)
    sizes = f"the {fmt.count(many)} texts of {split}" if many is not None else f"{split} texts"
    seeds = {number(row, "seeds") for row in rows(summary, "results")} - {None}
    repeated = " ± is the standard deviation over seeds, in points." if seeds - {1} else ""
    return join(
        [
            f"Measured on {sizes}. Agreement: share of texts on which a model answers like the "
            f"teacher. Texts/s: text in, label out, on the machine named below.{repeated}"
        ]
    )


def training(summary: Summary) -> Html:
    """Accuracy and loss by update."""
    accuracy = charts.training_curves(summary, "dev_accuracy")
    if accuracy is None:
        return quiet("No training curves: no student was trained in this run.")
    seconds: dict[str, float] = {}
    for run in rows(summary, "training"):
        spent = [number(point, "seconds") or 0.0 for point in rows(run, "points")]
        model = str(run.get("model"))
        seconds[model] = seconds.get(model, 0.0) + max(spent, default=0.0)
    spent_on = ", ".join(f"{title(summary, m)} {fmt.duration(s)}" for m, s in seconds.items() if s)
    return join(
        [
            pair(
                figure(
                    "dev",
                    accuracy,
                    "Higher is better. One line per seed; the dot is the checkpoint that was kept.",
                ),
                figure(
                    "loss",
                    charts.training_curves(summary, "loss"),
                    "Lower is better. Losses compare within one model only: distilled students "
                    "learn from the teacher's probabilities, the others from labels.",
                ),
            ),
            tag("p", f"Training time, all seeds: {spent_on}.", class_="note") if spent_on else None,
        ]
    )


def calibration(summary: Summary) -> Html:
    """Reliability before and after temperature scaling."""
    found = part(summary, "calibration")
    if not found:
        return quiet("No calibration: the package stage was not run.")
    split = fmt.one_line(found.get("split") or "held-out", limit=20)
    temperature = measured(found, "temperature", fmt.decimal)
    captions = []
    for when, words in (("before", "Before scaling"), ("after", "After scaling")):
        error = number(part(found, when), "ece")
        captions.append(f"{words}: on average {fmt.share(error)} off (expected calibration error).")
    reading = (
        " Points on the diagonal are honest: of the answers given with 80 % confidence, 80 % are "
        "right. Below it the student is too sure."
    )
    return join(
        [
            tag(
                "p",
                "Dividing the logits by one number, the temperature ",
                temperature,
                f", makes the confidence honest without changing an answer. Measured on {split}.",
            ),
            pair(
                figure("before", charts.reliability(summary, "before"), captions[0] + reading),
                figure(
                    "after",
                    charts.reliability(summary, "after"),
                    captions[1] + " The bars below count the texts.",
                ),
            ),
        ]
    )


def reading(summary: Summary) -> Html:
    """The vocabulary: what it holds and what it knows of a new text."""
    found = part(summary, "ngrams")
    if not found:
        return quiet("No n-grams: the vocabulary stage was not run.")
    known = part(found, "known_per_text")
    sentence = [
        "The student looks up ",
        measured(found, "rows", fmt.count),
        " n-grams, the most frequent of ",
        measured(found, "distinct", fmt.count),
        " different ones in the corpus.",
    ]
    if known:
        sentence += [
            " A text holds ",
            measured(known, "mean", fmt.decimal),
            " known n-grams on average; the middle text ",
            measured(known, "p50", fmt.decimal),
            ", the poorest tenth up to ",
            measured(known, "p10", fmt.decimal),
            ", the richest tenth from ",
            measured(known, "p90", fmt.decimal),
            ".",
        ]
    if number(found, "out_of_vocabulary") is not None:
        sentence += [
            " Of all n-grams in unseen texts ",
            measured(found, "out_of_vocabulary", fmt.share),
            " have no row; known are ",
            join(
                [_known_share(row) for row in rows(found, "known_by_order")],
                between=", ",
            ),
            ".",
        ]
    if number(found, "texts_without") is not None:
        sentence += [
            " Texts without any known n-gram: ",
            measured(found, "texts_without", fmt.count),
            ".",
        ]
    return join(
        [
            tag("p", *sentence),
            pair(
                figure(
                    "orders", charts.ngrams_per_order(summary), "What the rows of the table are."
                ),
                figure(
                    "coverage",
                    charts.coverage(summary),
                    "How many of the n-grams in unseen texts are known. Where the curve is still "
                    "steep at its right end, a larger vocabulary would help.",
                ),
            ),
        ]
    )


def _known_share(row: Summary) -> Html:
    order = number(row, "order") or 0
    known, every = number(row, "known"), number(row, "occurrences")
    value = known / every if known is not None and every else None
    name = charts.ORDER_NAMES.get(int(order), f"{order:.0f} words")
    return join([fmt.share(value), name], between=" of ")


SECTIONS: tuple[tuple[str, str, Callable[[Summary], Html]], ...] = (
    ("results", "Results", results),
    ("change", "What changed", change),
    ("mistakes", "Mistakes", mistakes),
    ("confidence", "Confidence", calibration),
    ("teacher", "The teacher", teacher),
    ("training", "Training", training),
    ("n-grams", "N-grams", reading),
    ("package", "Package", package),
    ("stages", "Stages", work),
    ("lineage", "Lineage", lineage),
    ("use", "Use it", use),
    ("environment", "Environment", environment),
)
