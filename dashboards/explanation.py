"""The page of one explanation: why a text got its label. It needs nothing but itself.

Its input is the JSON of an explanation (`sparsedistill.explanation.Explanation.to_json`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dashboards import format as fmt
from dashboards import highlighting
from dashboards.markup import Html, tag
from dashboards.page import page

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_LABELS = 4
_MOST_BARS = 12


class Line(NamedTuple):
    """A line of the table: what it is of, how often the text has it, and a number for each label.

    Attributes:
        kind: "for", "against", "others", "bias" or "logit".
    """

    kind: str
    name: str
    times: int | None
    values: list[float]


def shown_labels(explanation: Mapping[str, Any], most: int = MOST_LABELS) -> list[str]:
    """Return the labels that get a column: the given one and those next to it in probability."""
    shares = explanation["probabilities"]
    others = sorted(
        (name for name in shares if name != explanation["label"]), key=lambda name: -shares[name]
    )
    return [explanation["label"], *others][:most]


def lines(explanation: Mapping[str, Any], labels: list[str], top: int) -> list[Line]:
    """Return the table of an explanation, which adds up: its last line is the sum of the others.

    First come the n-grams that speak for the label, then those against it, of each the strongest
    first, together at most `top`; the rest is one line.
    """
    ngrams = explanation["ngrams"]
    label = explanation["label"]
    shown = [(towards(one["contributions"], label), one) for one in ngrams[:top]]
    found = [
        Line(
            "for" if value >= 0 else "against",
            one["ngram"],
            one["count"],
            [one["contributions"][name] for name in labels],
        )
        for value, one in sorted(shown, key=lambda each: (each[0] < 0, -abs(each[0])))
    ]
    rest = ngrams[top:]
    if rest:
        sums = [sum(one["contributions"][name] for one in rest) for name in labels]
        name = f"{len(rest):,} other n-gram{'s' if len(rest) > 1 else ''}"
        found.append(Line("others", name, sum(one["count"] for one in rest), sums))
    found.append(Line("bias", "bias", None, [explanation["bias"][name] for name in labels]))
    found.append(Line("logit", "logit", None, [explanation["logits"][name] for name in labels]))
    return found


def towards(contributions: Mapping[str, float], label: str) -> float:
    """Return what contributions do for a label against the others: less the mean of all."""
    return contributions[label] - sum(contributions.values()) / len(contributions)


def words(explanation: Mapping[str, Any]) -> list[highlighting.Word]:
    """Return the words of known n-grams with what they do for the label."""
    return [
        (one["start"], one["end"], towards(one["contributions"], explanation["label"]))
        for one in explanation["words"]
        if one["known"]
    ]


def render_explanation(explanation: Mapping[str, Any], *, model: str, top: int) -> str:
    """Return an explanation as one self-contained HTML page.

    Args:
        explanation: As JSON.
        model: The model's name, for people.
        top: N-grams to show.
    """
    label = fmt.one_line(explanation["label"])
    share = explanation["probabilities"][explanation["label"]]
    return page(
        f"{label}: why",
        "explanation.css",
        tag(
            "header",
            tag("p", fmt.one_line(model), class_="name"),
            tag("h1", tag("bdi", label), " ", tag("span", fmt.share(share), class_="share")),
        ),
        tag(
            "main",
            _text(explanation),
            _shares(explanation),
            _table(explanation, top),
            _notes(explanation),
        ),
        tag("footer", "Written by sparsedistill."),
    )


def _text(explanation: Mapping[str, Any]) -> Html:
    text = explanation["text"]
    found = words(explanation)
    return tag(
        "section",
        # The direction of a text is its own and must not turn what stands round it.
        tag("blockquote", highlighting.marked(text, found) or "(an empty text)", dir="auto"),
        highlighting.legend(f"for {fmt.one_line(explanation['label'])}", "against it")
        if found
        else tag(
            "p", "No n-gram of the text is known: the label is the model's bias.", class_="quiet"
        ),
        None
        if explanation["complete"]
        else tag(
            "p",
            "The text is longer than the model reads: what is not marked at its end did not count.",
            class_="quiet",
        ),
    )


def _shares(explanation: Mapping[str, Any]) -> Html:
    shares = explanation["probabilities"]
    order = sorted(shares, key=lambda name: -shares[name])
    rows = (
        tag(
            "li",
            tag("bdi", fmt.one_line(name)),
            tag(
                "span",
                tag("i", style=f"width:{100 * shares[name]:.2f}%"),
                class_="bar",
                aria_hidden="true",
            ),
            tag("span", fmt.share(shares[name]), class_="value"),
        )
        for name in order[:_MOST_BARS]
    )
    rest = len(order) - _MOST_BARS
    return tag(
        "section",
        tag("h2", "Probabilities"),
        tag("ul", *rows, class_="shares"),
        tag("p", f"and {rest} labels that are less probable", class_="quiet") if rest > 0 else None,
    )


def _table(explanation: Mapping[str, Any], top: int) -> Html:
    labels = shown_labels(explanation)
    left_out = len(explanation["probabilities"]) - len(labels)
    heading = tag(
        "tr",
        tag("th", "N-gram", scope="col"),
        tag("th", "Times", scope="col"),
        *(tag("th", tag("bdi", fmt.one_line(name, limit=24)), scope="col") for name in labels),
    )
    body = [
        tag(
            "tr",
            tag("th", _name(line), scope="row"),
            tag("td", "" if line.times is None else fmt.count(line.times)),
            *(tag("td", fmt.signed(value)) for value in line.values),
            class_=line.kind,
        )
        for line in lines(explanation, labels, top)
    ]
    shares = explanation["probabilities"]
    body.append(
        tag(
            "tr",
            tag("th", "probability", scope="row"),
            tag("td"),
            *(tag("td", fmt.share(shares[name])) for name in labels),
            class_="probability",
        )
    )
    table = tag("table", tag("thead", heading), tag("tbody", *body))
    return tag(
        "section",
        tag("h2", "What adds up to it"),
        # A box that scrolls must be reachable by keyboard.
        tag("div", table, class_="scroll", tabindex=0),
        tag("p", f"{left_out} labels that are less probable have no column here.", class_="quiet")
        if left_out > 0
        else None,
    )


def _name(line: Line) -> Html:
    name = tag("bdi", fmt.one_line(line.name))
    return tag("mark", name, class_=f"{line.kind} s1") if line.kind in ("for", "against") else name


def _notes(explanation: Mapping[str, Any]) -> Html:
    temperature = fmt.decimal(explanation["temperature"])
    return tag(
        "section",
        tag("h2", "How to read this"),
        tag(
            "p",
            "Each number is what all occurrences of an n-gram add to the logit of a label, by this "
            "very model for this very text: n-grams and bias add up to the logit exactly. N-grams "
            "that speak for the label come first, then those against it; what counts is how much "
            "more an n-gram gives to the label than to the mean of all labels. Probabilities are "
            f"the softmax of the logits divided by the temperature, {temperature}.",
        ),
        tag(
            "p",
            "In the text, a word has its even part of every n-gram it stands in.",
        ),
        tag(
            "p",
            "What it does not say: how the label would change without a word. The model takes the "
            "mean of the n-grams, so the others would weigh more, and parts of its hidden layer "
            "could switch.",
        ),
    )
