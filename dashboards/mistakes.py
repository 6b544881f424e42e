"""The section on mistakes: where student and teacher err, and texts on which they disagree."""

from __future__ import annotations

import math

from dashboards import charts, highlighting
from dashboards import format as fmt
from dashboards.blocks import Cell, figure, measured, table
from dashboards.blocks import quiet as quiet_line
from dashboards.markup import Html, join, tag
from dashboards.summary import TEACHER, Summary, number, part, rows, title

MOST_EXAMPLES = 16
# Larger matrices get the whole width of the page, and scroll on small screens.
_PAIRED_LABELS = 6
_MOST_NGRAMS = 8
_MOST_CHARACTERS = 420
_MOST_PAIRS = 10


def mistakes(summary: Summary) -> Html:
    """Confusion matrices, the four cases of right and wrong, and examples."""
    shown = [_confusion(summary), _cases(summary), _examples(summary)]
    if not any(shown):
        return quiet_line("No mistakes to show: the evaluation stage was not run.")
    return join(shown)


def _confusion(summary: Summary) -> Html | None:
    student = str(part(summary, "headline").get("student", ""))
    models = part(summary, "confusion", "models")
    order = [name for name in (student, TEACHER) if name in models] or list(models)[:2]
    wide = len(part(summary, "confusion").get("labels") or []) > _PAIRED_LABELS
    pictures = []
    for place, model in enumerate(order):
        caption: list[str | None] = [tag("strong", title(summary, model)), "."]
        if place == 0:
            caption.append(
                " Each row is one true label; a cell counts the texts that got the answer above "
                "it. Everything off the diagonal is a mistake."
            )
        pictures.append(
            figure(
                f"confusion-{place}",
                charts.confusion(summary, model, width=760 if wide else 420),
                join(caption),
                scroll=wide,
            )
        )
    if any(pictures):
        return join(pictures) if wide else tag("div", *pictures, class_="pair")
    return _pairs(summary, order[0]) if order else None


def _pairs(summary: Summary, model: str) -> Html | None:
    """The most frequent mistakes as a table, where there are too many labels for a picture."""
    labels = [fmt.one_line(label) for label in part(summary, "confusion").get("labels") or []]
    matrix = part(summary, "confusion", "models")[model]
    found = [
        (matrix[i][j], truth, answer)
        for i, truth in enumerate(labels)
        for j, answer in enumerate(labels)
        if i != j and matrix[i][j]
    ]
    if not found:
        return None
    found.sort(key=lambda case: (-case[0], case[1], case[2]))
    body: list[list[Cell]] = [
        [truth, answer, fmt.count(n)] for n, truth, answer in found[:_MOST_PAIRS]
    ]
    words = f"With {len(labels)} labels a matrix cannot be read. The most frequent mistakes of "
    return join(
        [tag("p", words, title(summary, model), ":"), table(["Truth", "Answer", "Texts"], body)]
    )


def _cases(summary: Summary) -> Html | None:
    counts = part(summary, "disagreements", "counts")
    cases = [
        ("both_right", "both right"),
        ("only_teacher", "only the teacher is right"),
        ("only_student", "only the student is right"),
        ("both_wrong", "both wrong"),
    ]
    total = sum(number(counts, key) or 0 for key, _ in cases)
    if not total:
        return None
    bar = (
        tag("i", class_=key.replace("_", "-"), style=f"flex-grow:{number(counts, key) or 0:.0f}")
        for key, _ in cases
    )
    legend = (
        tag(
            "li",
            tag("i", class_=key.replace("_", "-")),
            measured(counts, key, fmt.count),
            f" {words} ({fmt.share((number(counts, key) or 0) / total)})",
        )
        for key, words in cases
    )
    return join(
        [
            tag("h3", "Who is right"),
            tag("div", *bar, class_="cases", aria_hidden="true"),
            tag("ul", *legend, class_="legend"),
        ]
    )


def _examples(summary: Summary) -> Html | None:
    found = rows(summary, "disagreements", "examples")
    if not found:
        return None
    left_out = len(found) - MOST_EXAMPLES
    return join(
        [
            tag("h3", "Where they disagree"),
            tag(
                "p",
                "Texts to which student and teacher give different answers, with the n-grams that "
                "moved the student: a bar to the right pushed it towards its answer, one to the "
                "left away from it. In the text each word has its part of the n-grams it is in.",
            ),
            _legend(found),
            tag("div", *(_example(row) for row in found[:MOST_EXAMPLES]), class_="examples"),
            quiet_line(f"{left_out:,} more are in summary.json.") if left_out > 0 else None,
        ]
    )


def _legend(examples: list[Summary]) -> Html | None:
    if not any(_words(row) for row in examples[:MOST_EXAMPLES]):
        return None
    return highlighting.legend("towards the student's answer", "away from it")


def _words(row: Summary) -> list[highlighting.Word]:
    """The words of an example with what they add; what is not such a word is left out."""
    given = row.get("words")
    return [
        (int(word[0]), int(word[1]), float(word[2]))
        for word in (given if isinstance(given, list) else [])
        if isinstance(word, list)
        and len(word) == 3
        and all(isinstance(part, int | float) and math.isfinite(part) for part in word)
    ]


def _text(row: Summary) -> Html:
    text = str(row.get("text", ""))
    lead = len(text) - len(text.lstrip())
    text = text.strip()
    words = [(start - lead, end - lead, value) for start, end, value in _words(row)]
    if len(text) <= _MOST_CHARACTERS:
        return highlighting.marked(text, words)
    text = text[: _MOST_CHARACTERS - 1].rstrip()
    # Words that were cut away do not fit, and are left out.
    return join([highlighting.marked(text, words), "…"])


def _example(row: Summary) -> Html:
    return tag(
        "article",
        # The direction of a text is its own and must not turn what stands round it.
        tag("blockquote", _text(row) or "(an empty text)", dir="auto"),
        tag(
            "p",
            tag("span", "truth ", tag("b", tag("bdi", _label(row.get("label"))))),
            _answer("teacher", row),
            _answer("student", row),
            class_="answers",
        ),
        _ngrams(row),
    )


def _label(label: object) -> str:
    return fmt.one_line(label, limit=40)


def _answer(who: str, row: Summary) -> Html | None:
    given = part(row, who)
    if not given:
        return None
    right = given.get("label") == row.get("label")
    confidence = number(given, "confidence")
    return tag(
        "span",
        f"{who} ",
        tag("b", tag("bdi", _label(given.get("label")))),
        f" {fmt.share(confidence, digits=0)}" if confidence is not None else None,
        " ✓" if right else " ✗",
        class_="right" if right else "wrong",
    )


def _ngrams(row: Summary) -> Html | None:
    moved = [
        (fmt.one_line(entry.get("ngram", ""), limit=40), number(entry, "contribution"))
        for entry in rows(row, "ngrams")[:_MOST_NGRAMS]
    ]
    known = [(ngram, value) for ngram, value in moved if value is not None]
    if not known:
        return None
    largest = max(abs(value) for _, value in known) or 1.0
    return tag(
        "ul",
        *(
            tag(
                "li",
                tag("bdi", ngram),
                tag(
                    "span",
                    tag(
                        "i",
                        class_="towards" if value >= 0 else "away",
                        style=f"width:{50 * abs(value) / largest:.1f}%",
                    ),
                    class_="bar",
                ),
                tag("span", fmt.signed(value), class_="value"),
            )
            for ngram, value in known
        ),
        class_="ngrams",
    )
