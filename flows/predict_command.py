"""``predict``: the labels of texts, in order and as they come, by the base install alone.

Only one batch of rows is in memory at a time. What was printed before a bad row stays printed.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from flows.answer_columns import Shown
from flows.answer_files import check_labels, make_writer
from flows.input_files import Meter, check_inputs, format_by_name
from flows.input_rows import input_names, read_batches
from flows.output_files import open_output
from flows.progress_line import ProgressLine
from sparsedistill.classifier import Classifier
from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import BinaryIO

    from flows.input_rows import Batch
    from sparsedistill.answers import Threshold


def predict(options: argparse.Namespace) -> int:
    """Write the label of every row, in order, as the rows come."""
    shown = _shown(options)
    names = input_names(options.files)
    check_inputs(names)
    output_format = options.output_format
    if output_format == "auto":
        output_format = format_by_name(options.output or "")
    to_terminal = options.output is None and sys.stdout.isatty()
    if output_format == "parquet" and to_terminal:
        raise ConfigError("Parquet is no text for a terminal: say where it goes with --output")
    classifier = Classifier.from_pretrained(options.model, threads=options.threads)
    threshold = _threshold(options.abstain_below, classifier)
    meter = Meter(names)
    batches = read_batches(names, file_format=options.format, column=options.column, meter=meter)
    wanted = not options.no_progress and not to_terminal
    try:
        with ProgressLine(meter, wanted=wanted) as progress, open_output(options.output) as sink:
            if output_format == "text" and not shown and threshold is None:
                done = _write_labels(classifier, batches, sink)
            else:
                done = _write_answers(classifier, batches, sink, output_format, shown, threshold)
            for rows in done:
                progress.advance(rows)
    except BrokenPipeError:
        if options.output is None:
            # Whoever read has seen enough; there is nothing to flush to when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        raise
    return 0


def _write_labels(
    classifier: Classifier, batches: Iterator[Batch], sink: BinaryIO
) -> Iterator[int]:
    """Labels alone, the fastest way: no probability is computed."""
    check_labels(classifier.classes_)
    for batch in batches:
        labels = classifier.predict(batch.texts)
        sink.write("".join([f"{label}\n" for label in labels]).encode())
        sink.flush()
        yield len(labels)


def _write_answers(
    classifier: Classifier,
    batches: Iterator[Batch],
    sink: BinaryIO,
    output_format: str,
    shown: Shown,
    threshold: Threshold | None,
) -> Iterator[int]:
    writer = make_writer(output_format, sink, shown, classifier.classes_)
    for batch in batches:
        writer.write(batch, classifier.answers(batch.texts, abstain_below=threshold))
        sink.flush()
        yield len(batch.texts)
    writer.close()
    sink.flush()


def _shown(options: argparse.Namespace) -> Shown:
    if options.top is not None and options.top < 1:
        raise ConfigError(f"--top must be at least 1, not {options.top}")
    return Shown(every=options.proba, top=options.top or 0, coverage=options.coverage)


def _threshold(given: str | None, classifier: Classifier) -> Threshold | None:
    if given is None:
        return None
    if given == "model":
        if not classifier.thresholds:
            raise ConfigError(
                "--abstain-below model: this model has no thresholds; give a probability"
            )
        return classifier.thresholds
    try:
        return float(given)
    except ValueError:
        raise ConfigError(
            f"--abstain-below takes a probability such as 0.8, or 'model', not {given!r}"
        ) from None
