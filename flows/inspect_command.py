"""``inspect``: what is in a model."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboards.format import one_line, size, table_shape
from flows.output_files import print_json
from flows.plain_tables import facts, table
from sparsedistill.classifier import Classifier
from sparsedistill.errors import ConfigError
from sparsedistill.model_format import CONFIG_FILE, read_config
from sparsedistill.ngram_effects import strongest_ngrams
from sparsedistill.remote import fetch_model
from sparsedistill.text.kernels import SPACE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sparsedistill.text.buffers import TextBuffer

_SHORT_DIGEST = 12


def inspect(options: argparse.Namespace) -> int:
    """Print what a model holds; with ``--verify`` read all of it and compare checksums."""
    if options.ngrams < 0:
        raise ConfigError(f"--ngrams must be 0 or more, not {options.ngrams}")
    directory = fetch_model(options.model)
    found = describe(directory, verify=options.verify, ngrams=options.ngrams)
    if options.json:
        print_json(found)
    else:
        width = shutil.get_terminal_size().columns
        print("\n".join(render(found, str(options.model), width)))  # noqa: T201
    return 0


def describe(directory: Path, *, verify: bool, ngrams: int) -> dict[str, Any]:
    """What is in a model's directory, as JSON.

    Args:
        directory: Of the model.
        verify: Read every byte and compare checksums.
        ngrams: So many n-grams for each label.

    Raises:
        ModelFileError: A file is missing or damaged.
    """
    classifier = Classifier.load(directory, verify=verify)
    config = read_config(directory)
    folded = classifier.folded
    strings = classifier.ngrams
    own = (directory / CONFIG_FILE).stat().st_size
    return {
        "labels": list(classifier.classes_),
        "ngrams": folded.spec.to_json(),
        "max_ngrams": folded.max_ngrams,
        "rows": len(folded.table),
        "rows_by_order": None if strings is None else _by_order(strings),
        "width": folded.width,
        "hidden": folded.hidden,
        "dtype": folded.table_type,
        "activation": folded.activation,
        "temperature": folded.temperature,
        "thresholds": classifier.thresholds,
        "reference": bool(classifier.reference),
        "training": classifier.training,
        "files": [
            {"name": CONFIG_FILE, "bytes": own, "sha256": None},
            *(
                {"name": name, "bytes": count, "sha256": digest}
                for name, (count, digest) in config.files.items()
            ),
        ],
        "verified": verify,
        "strongest": _strongest(classifier, strings, ngrams) if ngrams and strings else None,
    }


def _by_order(strings: TextBuffer) -> dict[str, int]:
    """How many n-grams there are of each number of tokens."""
    spaces = np.concatenate([np.zeros(1, np.int64), np.cumsum(strings.data == SPACE)])
    counts = np.bincount(np.diff(spaces[strings.offsets]) + 1)
    return {str(order): int(n) for order, n in enumerate(counts) if n}


def _strongest(
    classifier: Classifier, strings: TextBuffer, most: int
) -> dict[str, list[dict[str, Any]]]:
    found = strongest_ngrams(classifier.folded, most)
    return {
        label: [{"ngram": strings[row], "effect": value} for row, value in rows]
        for label, rows in zip(classifier.classes_, found, strict=True)
    }


def render(found: Mapping[str, Any], name: str, width: int) -> list[str]:
    """The same as lines of text."""
    spec = found["ngrams"]
    labels = found["labels"]
    thresholds = found["thresholds"]
    pairs = [
        ("model", name),
        ("labels", f"{len(labels)}: {', '.join(map(one_line, labels))}"),
        ("n-grams", f"{found['rows']:,} of {spec['min_n']} to {spec['max_n']} tokens, tokenizer "
                    f"{spec['tokenizer']}{_orders(found)}"),
        ("reads", f"the first {found['max_ngrams']:,} known n-grams of a text"),
        ("table", f"{_shape(found)}, {found['activation']}"),
        ("temperature", f"{found['temperature']:.4g}"),
        ("thresholds", ", ".join(f"{one_line(label)} {value:.3g}" for label, value in
                                 thresholds.items()) or "none"),
        ("reference", "of the training corpus, for drift" if found["reference"] else "none"),
        *((one_line(f"made: {key}"), value) for key, value in _flat(found["training"])),
        ("checked", "every byte: all checksums agree" if found["verified"] else
                    "all sizes, and every checksum but that of the table; --verify reads it too"),
    ]  # fmt: skip
    rows = [
        [file["name"], size(file["bytes"]), (file["sha256"] or "")[:_SHORT_DIGEST]]
        for file in found["files"]
    ]
    rows.append(["together", size(sum(file["bytes"] for file in found["files"])), ""])
    lines = [*facts(pairs, width=width), "", *table(["file", "bytes", "sha256"], rows)]
    if found["strongest"]:
        effects = [
            (one_line(label), ", ".join(f"{one_line(n['ngram'])} {n['effect']:+.2f}" for n in top))
            for label, top in found["strongest"].items()
        ]
        lines += [
            "",
            "n-grams that speak most for each label when they are all that is known of a text",
            "(how far they move its logit from the mean of the labels):",
            *facts(effects, width=width),
        ]
    elif found["rows_by_order"] is None:
        lines += ["", "the n-grams' strings are not in this model, so none can be named"]
    return lines


def _shape(found: Mapping[str, Any]) -> str:
    return table_shape(found["rows"], found["width"], found["hidden"], found["dtype"])


def _orders(found: Mapping[str, Any]) -> str:
    orders = found["rows_by_order"]
    if not orders:
        return ""
    return ": " + ", ".join(
        f"{count:,} of {order} ({count / found['rows']:.1%})" for order, count in orders.items()
    )


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested JSON as names with dots and values."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif value != {}:
        yield name, one_line(value if isinstance(value, str) else json.dumps(value), limit=200)
