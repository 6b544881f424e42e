"""``predict`` and ``explain``: a packaged model at the command line, by the base install alone."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sparsedistill.classifier import Classifier
from sparsedistill.errors import ConfigError, DataError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_LINES = 4096
_DEFAULT_MODEL = "model"
_BAR = 20


def predict(options: argparse.Namespace) -> int:
    """Print the label of every line, in order, as the lines come."""
    classifier = Classifier.load(options.model or _DEFAULT_MODEL, threads=options.threads)
    output = sys.stdout
    if options.proba:
        output.write("\t".join(["label", *classifier.classes_]) + "\n")
    with _lines(options.file) as lines:
        while batch := [line.rstrip("\r\n") for line in islice(lines, _LINES)]:
            if options.proba:
                for row in classifier.predict_proba(batch):
                    shares = "\t".join(f"{share:.6f}" for share in row)
                    output.write(f"{classifier.classes_[int(row.argmax())]}\t{shares}\n")
            else:
                output.writelines(f"{label}\n" for label in classifier.predict(batch))
            output.flush()
    return 0


def explain(options: argparse.Namespace) -> int:
    """Print a text's label and the n-grams that speak most for and against it."""
    if options.top < 1:
        raise ConfigError(f"--top must be at least 1, not {options.top}")
    classifier = Classifier.load(options.model)
    explanation = classifier.explain(options.text)
    print(f"{explanation.label}  ({classifier.predict_proba(options.text).max():.1%})")  # noqa: T201
    shown = explanation.towards(explanation.label)[: options.top]
    if not shown:
        print("  no n-gram of the text is known: the label is the model's bias")  # noqa: T201
    most = max((abs(value) for _, value in shown), default=0.0) or 1.0
    width = max((len(ngram) for ngram, _ in shown), default=0)
    for ngram, value in shown:
        bar = "█" * max(1, round(_BAR * abs(value) / most))
        print(f"  {value:+8.3f}  {ngram:<{width}}  {_coloured(bar, value)}")  # noqa: T201
    return 0


def _coloured(bar: str, value: float) -> str:
    if not sys.stdout.isatty():
        return bar
    return f"\033[{'32' if value > 0 else '31'}m{bar}\033[0m"


@contextmanager
def _lines(file: str | None) -> Iterator[Iterator[str]]:
    """Give the lines of a file or of standard input; a line that is no UTF-8 is an error."""
    if file is None:
        stream: BinaryIO = sys.stdin.buffer
    else:
        try:
            stream = Path(file).open("rb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error
    with stream:
        yield _decoded(stream, file or "standard input")


def _decoded(stream: BinaryIO, name: str) -> Iterator[str]:
    # Line by line: a text stream decodes ahead, and could not say which line is bad.
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            reason = f"not valid UTF-8 ({error.reason} at byte {error.start})"
            raise DataError(f"{name}: line {number}: {reason}") from error
