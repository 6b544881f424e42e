"""An explanation in the terminal: the text with its words coloured, and the table that adds up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dashboards import highlighting
from dashboards.explanation import lines, shown_labels, words
from dashboards.format import clean, one_line
from flows.plain_tables import display_width, left, right

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dashboards.explanation import Line

# Ink and paper of 256 colours, by step: readable on light terminals and on dark ones.
_FOR = ("48;5;153", "48;5;117", "48;5;75", "48;5;39")
_AGAINST = ("48;5;223", "48;5;222", "48;5;215", "48;5;208")
_INK, _UNDERLINED, _END = "38;5;16", "4", "\033[0m"
_BOLD, _FAINT = "\033[1m", "\033[2m"
_LONGEST_NAME = 40
_MARKS = {"for": "+", "against": "-"}


def render(explanation: Mapping[str, Any], *, top: int, colour: bool, width: int) -> str:
    """An explanation as lines of text.

    Args:
        explanation: As JSON.
        top: N-grams to show.
        colour: Whether the terminal shows colours. Words against the label are underlined too.
        width: Characters in a line.
    """
    label = explanation["label"]
    shares = explanation["probabilities"]
    others = [f"{one_line(name)} {shares[name]:.1%}" for name in shown_labels(explanation)[1:]]
    head = f"{_bold(one_line(label), colour)}  {shares[label]:.1%}"
    found = [f"{head}  ({', '.join(others)})", "", *_text(explanation, colour, width), ""]
    if not explanation["ngrams"]:
        found += ["no n-gram of the text is known: the label is the model's bias", ""]
    if not explanation["complete"]:
        found += ["the text is longer than the model reads: its end did not count", ""]
    found += _table(explanation, top, colour, width)
    return "\n".join(found) + "\n"


def _text(explanation: Mapping[str, Any], colour: bool, width: int) -> list[str]:
    """The text wrapped between words, its marked words coloured."""
    text = explanation["text"]
    steps: list[int] = [0] * len(text)
    if colour:
        spans = words(explanation)
        most = highlighting.strongest(spans)
        for start, end, value in spans:
            steps[start:end] = [highlighting.step(value, most)] * (end - start)
    found = []
    for paragraph in re.finditer(r"[^\n]+|(?<=\n)(?=\n)", text):
        line, used = "  ", 2
        for piece in re.finditer(r"\s*\S+|\s+$", paragraph.group()):
            size = display_width(piece.group())
            start = paragraph.start() + piece.start()
            end = start + len(piece.group())
            if used + size > width and used > 2:
                found.append(line)
                line, used = "  ", 2
                start = end - len(piece.group().lstrip())
                size = display_width(text[start:end])
            line += _painted(text, steps, start, end)
            used += size
        found.append(line)
    return found or ["  (an empty text)"]


def _painted(text: str, steps: list[int], start: int, end: int) -> str:
    painted = ""
    while start < end:
        stop = start + 1
        while stop < end and steps[stop] == steps[start]:
            stop += 1
        painted += _paint(clean(text[start:stop]), steps[start])
        start = stop
    return painted


def _paint(text: str, step: int) -> str:
    if step == 0:
        return text
    if step > 0:
        return f"\033[{_INK};{_FOR[step - 1]}m{text}{_END}"
    return f"\033[{_INK};{_UNDERLINED};{_AGAINST[-step - 1]}m{text}{_END}"


def _table(explanation: Mapping[str, Any], top: int, colour: bool, width: int) -> list[str]:
    labels = shown_labels(explanation)
    shares = explanation["probabilities"]
    table = lines(explanation, labels, top)
    names = [one_line(line.name, limit=_LONGEST_NAME) for line in table]
    wide = max([*map(display_width, names), len("probability")])
    # As many labels as fit, the given one in any case.
    heads = [one_line(name, limit=16) for name in labels]
    columns = [max(9, display_width(head)) for head in heads]
    while len(columns) > 1 and 2 + wide + 7 + sum(2 + size for size in columns) > width:
        columns.pop()

    def row(mark: str, name: str, count: str, cells: list[str]) -> str:
        shown = (right(cell, size) for cell, size in zip(cells, columns, strict=False))
        return f"{mark} {left(name, wide)}  {count:>5}  {'  '.join(shown)}".rstrip()

    found = [_faint(row(" ", "", "times", heads), colour)]
    for name, line in zip(names, table, strict=True):
        if line.kind == "logit":
            found.append(_faint(row(" ", "", "", ["─" * size for size in columns]), colour))
        count = "" if line.times is None else f"{line.times:,}"
        cells = [f"{value:+.3f}" for value in line.values]
        found.append(_shaded(row(_MARKS.get(line.kind, " "), name, count, cells), line, colour))
    found.append(row(" ", "probability", "", [f"{shares[name]:.1%}" for name in labels]))
    label = one_line(explanation["label"])
    notes = [
        "",
        f"n-grams and bias add up to the logit; + speaks for {label}, - against it",
        f"probability is the softmax of the logits / {explanation['temperature']:.3g}",
    ]
    if len(shares) > len(columns):
        notes.append(f"{len(shares) - len(columns)} more labels: --json has them all")
    return found + [_faint(note, colour and note != "") for note in notes]


def _shaded(row: str, line: Line, colour: bool) -> str:
    if line.kind in ("others", "bias"):
        return _faint(row, colour)
    return _bold(row, colour) if line.kind == "logit" else row


def _bold(text: str, colour: bool) -> str:
    return f"{_BOLD}{text}{_END}" if colour else text


def _faint(text: str, colour: bool) -> str:
    return f"{_FAINT}{text}{_END}" if colour else text
