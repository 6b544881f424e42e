"""What a re-distillation changed: the new model beside the one that was current until then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards import format as fmt
from dashboards.blocks import measured, quiet, table
from dashboards.markup import Html, join, tag
from dashboards.summary import Summary, number, part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dashboards.blocks import Cell


def change(summary: Summary) -> Html:
    """Accuracy of both models on the same texts, the verdict, and n-grams that came and went."""
    found = part(summary, "change")
    if not found:
        return quiet("Nothing to compare with: there was no current model.")
    verdict = "To be promoted" if found.get("promote") else "Not to be promoted"
    return join(
        [
            tag("p", f"{verdict}: {fmt.one_line(found.get('why'), limit=400)}."),
            _accuracies(found),
            _ngrams(part(found, "ngrams")),
        ]
    )


def _accuracies(found: Summary) -> Html | None:
    body: list[Sequence[Cell]] = []
    for split in part(found, "splits"):
        one = part(found, "splits", split)
        body.append(
            [
                fmt.one_line(split),
                measured(one, "rows", fmt.count),
                measured(one, "new_accuracy", fmt.exact_share),
                measured(one, "current_accuracy", fmt.exact_share),
                measured(one, "only_new", fmt.count),
                measured(one, "only_current", fmt.count),
                measured(one, "agreement", fmt.share),
                measured(one, "p_value", fmt.decimal),
            ]
        )
    if not body:
        return None
    heads = [
        "Texts of", "Texts", "New", "Until now", "Only new right", "Only old right", "Agree", "p",
    ]  # fmt: skip
    note = (
        "Both models on the same texts. p: how likely so uneven a split of the texts that only one "
        "gets right would be, were both equally good (McNemar's exact test)."
    )
    splits = [part(found, "splits", split) for split in part(found, "splits")]
    left_out = sum(number(one, "left_out") or 0 for one in splits)
    if left_out:
        note += f" {fmt.count(left_out)} texts are left out: only one had learned their labels."
    return join([table(heads, body), tag("p", note, class_="note")])


def _ngrams(found: Summary) -> Html | None:
    if not found:
        return None
    told = [
        f"{fmt.count(number(found, 'added'))} n-grams are new, "
        f"{fmt.count(number(found, 'gone'))} are gone."
    ]
    paragraphs = [tag("p", *told)]
    examples = part(found, "examples")
    for key, words in (("added", "The most frequent new ones"), ("gone", "Of those gone")):
        ngrams = examples.get(key) or []
        if ngrams:
            names = join((tag("bdi", fmt.one_line(one)) for one in ngrams), between=" · ")
            paragraphs.append(tag("p", f"{words}: ", names, class_="note"))
    return join(paragraphs)
