"""Several runs side by side on one page that needs nothing but itself, in the report's look.

Its input is ``comparison.json``: the summaries of the runs, and the settings in which they differ.
The pictures are those of the report, over a summary whose models are the runs' students.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from dashboards import charts, theme
from dashboards import format as fmt
from dashboards.blocks import Cell, figure, measured, pair, quiet, swatch, table
from dashboards.drawing import horizontal_bars, model_names
from dashboards.markup import Html, join, tag
from dashboards.page import page
from dashboards.summary import TEACHER, Summary, number, part, result, rows, times_teacher, title

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1
_STUDENT_IN_TRAINING = "dan_kd"
# The marks that models have in a report; here they are those of the runs, in this order.
_MARKS = (
    "dan_kd_ft", "dan_scratch", "bilstm_kd", "dan_kd_private", "cnn_kd", "dan_kd", "tfidf_lr",
)  # fmt: skip


def render_comparison(comparison: Summary) -> str:
    """Return finished runs side by side as one self-contained HTML page.

    Raises:
        ValueError: It has a newer format than this version reads.
    """
    if comparison.get("format") != FORMAT:
        raise ValueError(
            f"comparison.json has format {comparison.get('format')!r}; this version reads format "
            f"{FORMAT}. Update sparsedistill, or compare again with this version."
        )
    students = as_summary(comparison)
    parts = [
        ("results", "Results", _results(comparison, students)),
        ("training", "Training", _training(students)),
        ("agreement", "Agreement with the teacher", _agreement(students)),
        ("models", "Every model", _models(comparison)),
        ("settings", "Settings that differ", _settings(comparison)),
        ("runs", "The runs", _runs(comparison)),
    ]
    return page(
        "sparsedistill: runs compared",
        "report.css",
        _top(comparison, students),
        tag("nav", *(tag("a", heading, href=f"#{anchor}") for anchor, heading, _ in parts)),
        tag(
            "main",
            *(tag("section", tag("h2", head), content, id=name) for name, head, content in parts),
        ),
        tag("footer", f"Written by sparsedistill {fmt.one_line(comparison.get('tool_version'))}."),
    )


def as_summary(comparison: Summary) -> dict[str, Any]:
    """Return the summary of a run whose models are the runs' students, and their teachers."""
    results: list[dict[str, Any]] = []
    training: list[dict[str, Any]] = []
    teachers: dict[str, dict[str, Any]] = {}
    for mark, run in zip(_marks(comparison), rows(comparison, "runs"), strict=True):
        name, summary = _name(run), part(run, "summary")
        results.append({**_student(summary), "model": mark, "title": name})
        training += [
            {**one, "model": mark}
            for one in rows(summary, "training")
            if one.get("model") == _STUDENT_IN_TRAINING
        ]
        if teacher := result(summary, TEACHER):
            # One that several runs share was timed in each: it is one teacher all the same.
            same = json.dumps([run.get("texts"), teacher.get("accuracy"), teacher.get("bytes")])
            teachers.setdefault(same, {**teacher, "of": name})
    for one in teachers.values():
        alone = len(teachers) == 1
        model = TEACHER if alone else f"{TEACHER} of {one['of']}"
        results.append({**one, "model": model, "title": model})
    return {"results": results, "training": training}


def _marks(comparison: Summary) -> list[str]:
    """Return what stands for each run: names of models that have a colour, while there are some."""
    runs = rows(comparison, "runs")
    return [*_MARKS, *(f"run {number}" for number in range(len(_MARKS), len(runs)))][: len(runs)]


def _name(run: Summary) -> str:
    return fmt.one_line(run.get("name"), limit=30)


def _student(summary: Summary) -> Summary:
    return result(summary, str(part(summary, "headline").get("student")))


def _top(comparison: Summary, students: Summary) -> Html:
    made = fmt.one_line(comparison.get("created") or "").replace("T", " ")
    runs = rows(comparison, "runs")
    found = [row for row in rows(students, "results")[: len(runs)] if number(row, "accuracy")]
    best = max(found, key=lambda row: number(row, "accuracy") or 0.0, default=None)
    heading = "Nothing was evaluated"
    if best is not None and _same_texts(comparison):
        share = fmt.exact_share(number(best, "accuracy"))
        heading = f"{best['title']} is the most accurate of {len(runs)}: {share}"
    elif best is not None:
        heading = f"{len(runs)} runs, measured on different texts"
    return tag(
        "header",
        tag("p", join(["runs compared", f"{made[:16]} UTC"], between=" · "), class_="name"),
        tag("h1", heading),
    )


def _results(comparison: Summary, students: Summary) -> Html:
    names = model_names(students)
    colours = theme.colours(names)
    body: list[list[Cell]] = []
    own = dict(zip(_marks(comparison), rows(comparison, "runs"), strict=True))
    for row in rows(students, "results"):
        model = str(row.get("model"))
        mark = join([swatch(model, colours[model]), title(students, model)], between=" ")
        # A run's student is compared with the run's own teacher, timed beside it.
        summary = part(own.get(model, {}), "summary")
        spread = measured(row, "accuracy_spread", fmt.points) if row.get("accuracy_spread") else ""
        body.append(
            [
                mark,
                join([measured(row, "accuracy", fmt.exact_share), spread], between=" "),
                measured(row, "macro_f1", fmt.share),
                measured(row, "agreement", fmt.share),
                measured(row, "texts_per_second", fmt.rate),
                fmt.times(times_teacher(summary, _student(summary))),
                measured(row, "bytes", fmt.size),
                fmt.count(number(part(summary, "ngrams"), "rows")),
                fmt.count(number(part(summary, "corpus"), "rows")),
            ]
        )
    heads = [
        "Run", "Accuracy", "Macro-F1", "Agreement", "Texts/s", "× teacher", "Size", "N-grams",
        "Corpus",
    ]  # fmt: skip
    return join(
        [
            table(heads, body),
            *(tag("p", note, class_="note") for note in notes(comparison)),
            pair(
                _trade(students, "texts_per_second", "Up is more accurate, right is faster."),
                _trade(students, "bytes", "Up is more accurate, left is smaller."),
            ),
        ]
    )


def _trade(
    students: Summary, key: Literal["texts_per_second", "bytes"], caption: str
) -> Html | None:
    return figure(
        key.replace("_", "-"),
        charts.accuracy_against(students, key, width=500, height=300),
        f"{caption} The accuracy axis does not start at zero.",
        narrow=charts.accuracy_against(students, key, width=380, height=280),
    )


def notes(comparison: Summary) -> list[str]:
    """Return what must be known to read the figures: what of them cannot be compared."""
    found = []
    first = part(next(iter(rows(comparison, "runs")), {}), "summary", "splits")
    split = fmt.one_line(first.get("evaluated_on") or "test", limit=20)
    many = number(first, split)
    if many and _same_texts(comparison):
        found.append(
            f"Measured on the {fmt.count(many)} texts of {split}: one text is "
            f"{100 / many:.2f} points. ± is the standard deviation over seeds, in points."
        )
    if not _same_texts(comparison):
        found.append(
            "The runs were not measured on the same texts: their accuracies say nothing about "
            "each other."
        )
    machines = {
        (part(run, "summary", "environment").get("cpu"), _threads(run))
        for run in rows(comparison, "runs")
    }
    if len(machines) > 1:
        found.append(
            "The runs were not measured on one machine with the same number of threads: compare "
            "their speeds with their own teacher's only."
        )
    return found


def _threads(run: Summary) -> float | None:
    return number(part(run, "summary", "environment"), "threads")


def _same_texts(comparison: Summary) -> bool:
    return len({run.get("texts") for run in rows(comparison, "runs")}) == 1


def _training(students: Summary) -> Html:
    accuracy = charts.training_curves(students, "dev_accuracy")
    if accuracy is None:
        return quiet("No training curves: no student was distilled in these runs.")
    return pair(
        figure(
            "dev",
            accuracy,
            "Of the student while it is distilled. One line per seed; the dot is what was kept.",
        ),
        figure(
            "loss",
            charts.training_curves(students, "loss"),
            "Losses compare between runs with one objective, temperature and teacher only.",
        ),
    )


def _agreement(students: Summary) -> Html:
    found = [
        (title(students, row.get("model")), value, fmt.exact_share(value))
        for row in rows(students, "results")
        if (value := number(row, "agreement")) is not None
    ]
    if not found:
        return quiet("No agreement: no teacher labelled the texts that were measured on.")
    wide, narrow = (
        horizontal_bars(found, axis="share of texts answered like the teacher →", width=width)
        for width in (700, 380)
    )
    return join([figure("agreement", wide, "Each with its own run's teacher.", narrow=narrow)])


def _models(comparison: Summary) -> Html:
    """Every model of every run: a row a model, a column a run."""
    runs = rows(comparison, "runs")
    titles: dict[str, str] = {}
    for run in runs:
        for row in rows(part(run, "summary"), "results"):
            titles.setdefault(str(row.get("model")), title(part(run, "summary"), row.get("model")))
    if not titles:
        return quiet("No results: the evaluation stage was not run.")
    body: list[Sequence[Cell]] = [
        [name, *(measured(_row(run, model), "accuracy", fmt.exact_share) for run in runs)]
        for model, name in titles.items()
    ]
    heads = ["Accuracy", *(_name(run) for run in runs)]
    return table(heads, body)


def _row(run: Summary, model: str) -> Summary:
    return result(part(run, "summary"), model)


def _settings(comparison: Summary) -> Html:
    found = rows(comparison, "settings")
    if not found:
        return quiet("None: the configurations are the same.")
    body: list[Sequence[Cell]] = [
        [fmt.one_line(one.get("key")), *(_value(value) for value in one.get("values") or [])]
        for one in found
    ]
    names = [_name(run) for run in rows(comparison, "runs")]
    return table(["Setting", *names], body)


def _value(value: object) -> str:
    if value is None:
        return fmt.MISSING
    if isinstance(value, str):
        return fmt.one_line(value, limit=40)
    return fmt.one_line(json.dumps(value, ensure_ascii=False), limit=40)


def _runs(comparison: Summary) -> Html:
    body: list[Sequence[Cell]] = []
    for run in rows(comparison, "runs"):
        summary = part(run, "summary")
        seconds = sum(number(stage, "seconds") or 0.0 for stage in rows(summary, "stages"))
        spent = {str(one.get("stage")): number(one, "seconds") for one in rows(summary, "stages")}
        body.append(
            [
                _name(run),
                fmt.one_line(summary.get("created") or "").replace("T", " ")[:16],
                fmt.duration(seconds),
                fmt.duration(spent.get("student")),
                fmt.count(number(part(summary, "splits"), "train")),
                fmt.one_line(part(summary, "splits").get("evaluated_on") or fmt.MISSING),
                fmt.count(_threads(run)),
            ]
        )
    heads = ["Run", "Reported", "Work", "Students", "Train texts", "Measured on", "Threads"]
    note = "Work counts what was reused with the time it took when it was made."
    return join([table(heads, body), tag("p", note, class_="note")])
