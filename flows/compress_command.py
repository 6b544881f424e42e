"""``compress``: a packaged model made smaller, by settings or under limits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboards import format as fmt
from flows.labelled_rows import LabelledTexts, read_labelled_texts
from flows.output_files import open_json
from sparsedistill.classifier import Classifier
from sparsedistill.compression.calibration import calibrate
from sparsedistill.compression.held_out import HeldOut
from sparsedistill.compression.limits import AccuracyFloor, Limits
from sparsedistill.compression.narrowing import Basis
from sparsedistill.compression.pruning import row_use
from sparsedistill.compression.recipe import Compression
from sparsedistill.compression.recipe import compress as compress_model
from sparsedistill.compression.sizes import saved_bytes
from sparsedistill.compression.steps import StepLog
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.memory import parse_size
from sparsedistill.model_format import save_model
from sparsedistill.remote import fetch_model
from sparsedistill.vocabulary import Vocabulary

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from sparsedistill.compression.recipe import Compressed
    from sparsedistill.folded import FoldedModel

# Bytes that numbers in config.json may grow by after a size is measured.
_ROOM = 64


def compress(options: argparse.Namespace) -> int:
    """Write the smaller model, and print what each step cost and gained."""
    asked = _asked(options)
    source, out = fetch_model(options.model), Path(options.out)
    if out.exists() and out.samefile(source):
        raise ConfigError(f"{out} is the model itself; write the smaller one to another directory")
    classifier = Classifier.load(source, threads=options.threads)
    vocabulary = _vocabulary(classifier, options.counts)
    dev = _dev(options, classifier)
    log = StepLog(*(dev or ()), threads=options.threads)
    log.measure("given", classifier.folded, vocabulary)
    with open_json(options.json) as write:
        made, size = _compress(classifier, vocabulary, asked, dev, log, out)
        summary = {
            "steps": [step.to_json() for step in log.steps],
            "tried": [form.to_json() for form in made.tried],
            "bytes": size,
            "temperature": made.model.temperature,
            "keeps_thresholds_and_reference": _keeps_notes(classifier.folded, made.model),
        }
        write(summary)
        print(_report(summary, out))  # noqa: T201
    return 0


def _asked(options: argparse.Namespace) -> Compression:
    limits = Limits(
        None if options.max_size is None else parse_size(options.max_size),
        None if options.min_accuracy is None else AccuracyFloor.parse(options.min_accuracy),
    )
    if options.min_accuracy is not None and options.dev is None:
        raise ConfigError("--min-accuracy takes --dev FILE: labelled texts to measure it on")
    if not limits and options.dtype is options.width is options.keep_share is None:
        raise ConfigError(
            "say how the model is to become smaller: --dtype, --width, --keep-share, --max-size "
            "or --min-accuracy"
        )
    return Compression(options.dtype, options.width, options.keep_share, options.keep_by, limits)


def _vocabulary(classifier: Classifier, counts: str | None) -> Vocabulary:
    """The model's n-grams with the counts that a saved vocabulary has for them, if one is given."""
    folded = classifier.folded
    if classifier.ngrams is None:
        raise ConfigError(
            "the model was saved without its n-grams, which compressing takes; save it with them"
        )
    if counts is None:
        return Vocabulary.from_strings(folded.spec, classifier.ngrams)
    counted = Vocabulary.load(counts)
    rows = counted.index.find(folded.index.hashes)
    if (rows < 0).any():
        unknown = classifier.ngrams[int(np.flatnonzero(rows < 0)[0])]
        raise DataError(
            f"--counts {counts}: the model's n-gram {unknown!r} is not in that vocabulary; give "
            "the one that the model was made with"
        )
    return Vocabulary(
        folded.spec,
        classifier.ngrams,
        folded.index.hashes,
        counted.counts[rows],
        counted.train_counts[rows],
    )


def _dev(options: argparse.Namespace, classifier: Classifier) -> LabelledTexts | None:
    if options.dev is None:
        return None
    return read_labelled_texts(
        options.dev,
        classifier.classes_,
        text_column=options.text_column,
        label_column=options.label_column,
    )


def _compress(
    classifier: Classifier,
    vocabulary: Vocabulary,
    asked: Compression,
    dev: LabelledTexts | None,
    log: StepLog,
    out: Path,
) -> tuple[Compressed, int]:
    """Make the model and write it; returns its size on disk too."""
    folded = classifier.folded
    origin = {"rows": len(folded.index), "dtype": folded.table_type}
    training = {**classifier.training, "compressed_from": origin}

    def save(directory: Path, model: FoldedModel, ngrams: Vocabulary) -> int:
        notes: dict[str, Any] = {}
        if _keeps_notes(folded, model):
            notes = {"thresholds": classifier.thresholds, "reference": classifier.reference}
        save_model(directory, model, ngrams, training=training, **notes)
        return saved_bytes(directory)

    held_out = basis = None
    if dev is not None and asked.limits:
        basis = Basis.of(folded, row_use(vocabulary))
        held_out = HeldOut(folded, dev.texts, dev.truth, basis=basis, threads=classifier.threads)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        made = compress_model(
            folded,
            vocabulary,
            asked,
            log=log,
            measure=lambda model, ngrams: save(Path(scratch), model, ngrams) + _ROOM,
            held_out=held_out,
            basis=basis,
        )
    # Of a model that was calibrated: at the old temperature a smaller one is too sure.
    if dev is not None and folded.temperature != 1:
        made = made._replace(model=calibrate(made.model, log.logits, dev.truth))
    return made, save(out, made.model, made.vocabulary)


def _keeps_notes(given: FoldedModel, made: FoldedModel) -> bool:
    """Whether the given model's thresholds and reference hold for the one made of it.

    They are of its probabilities and of the n-grams that it knows.
    """
    return (len(given.index), given.width) == (len(made.index), made.width)


def _report(summary: Mapping[str, Any], out: Path) -> str:
    steps = [
        [
            step["step"],
            fmt.count(step["rows"]),
            fmt.size(step["bytes"]),
            fmt.exact_share(step["accuracy"]),
            fmt.exact_share(step["agreement"]),
            fmt.decimal(step["max_logit_difference"]),
            fmt.rate(step["texts_per_second"]),
        ]
        for step in summary["steps"]
    ]
    heads = ["step", "rows", "size", "accuracy", "agreement", "largest change", "texts/s"]
    lines = _table(heads, steps)
    if summary["tried"]:
        tried = [
            [
                form["rule"],
                fmt.count(form["rows"]),
                f"{form['width']} {form['dtype']}",
                fmt.size(form["bytes"]),
                fmt.exact_share(form["accuracy"]),
                fmt.exact_share(form["agreement"]),
            ]
            for form in summary["tried"]
        ]
        heads = ["tried: by", "rows", "shape", "size", "accuracy", "agreement"]
        lines += ["", *_table(heads, tried)]
    lines += ["", f"{out}: {summary['bytes']:,} bytes"]
    if not summary["keeps_thresholds_and_reference"]:
        lines.append("without thresholds and drift reference: those were the given model's")
    return "\n".join(lines)


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [heads, *body]
    ]
