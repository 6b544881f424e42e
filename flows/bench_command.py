"""``bench``: what a model does on this machine, as it will be used: text in, label out.

Times of starting are those of fresh processes. Everything else is in this one, after the first
calls, for texts of the user or for texts made up of the model's own n-grams.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboards.format import size, table_shape
from flows.input_files import Meter, check_inputs
from flows.input_rows import read_batches
from flows.output_files import open_json
from flows.plain_tables import facts, table
from sparsedistill import __version__
from sparsedistill.classifier import Classifier
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.remote import fetch_model
from sparsedistill.remote_sources import shown_name
from tasks.environment import environment

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

# Of a file no more is measured on than this.
_MOST_TEXTS, _MOST_BYTES = 200_000, 1 << 26
_MADE_UP = {"short": (4096, 4), "long": (512, 80)}
_PROBE = """
import gc, json, sys, time
started = time.perf_counter()
from sparsedistill.classifier import Classifier
imported = time.perf_counter()
classifier = Classifier.load(sys.argv[1])
loaded = time.perf_counter()
classifier.predict("a first text to label")
answered = time.perf_counter()
from numba.core.dispatcher import Dispatcher
kernels = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
print(json.dumps({
    "import": imported - started,
    "load": loaded - imported,
    "first_answer": answered - loaded,
    "compiled": sum(len(one.stats.cache_misses) for one in kernels),
}))
"""


def bench(options: argparse.Namespace) -> int:
    """Measure start, batches, single texts; print a table, write it as JSON where asked."""
    threads = _threads(options.threads)
    if options.seconds <= 0:
        raise ConfigError(f"--seconds must be more than 0, not {options.seconds}")
    directory = fetch_model(options.model)
    classifier = Classifier.load(directory)
    sets = _texts(options, classifier)
    with open_json(options.json) as write:
        found: dict[str, Any] = {
            "model": shown_name(str(options.model)),
            "bytes": sum(path.stat().st_size for path in directory.iterdir() if path.is_file()),
            "rows": len(classifier.folded.table),
            "width": classifier.folded.width,
            "hidden": classifier.folded.hidden,
            "dtype": classifier.folded.table_type,
            "sparsedistill": __version__,
            **environment(max(threads)),
            "cores": os.cpu_count(),
            "start": _start(directory),
            "texts": [
                measure(directory, name, texts, threads, options.seconds)
                for name, texts in sets.items()
            ],
        }
        print("\n".join(render(found)))  # noqa: T201
        write(found)
    return 0


def made_up_texts(classifier: Classifier, *, texts: int, ngrams: int, seed: int = 0) -> list[str]:
    """Texts of so many of the model's own n-grams each, frequent ones more often than rare ones.

    Args:
        classifier: Has the n-grams by row, the most frequent first.
        texts: How many.
        ngrams: In each.
        seed: The same gives the same texts.

    Raises:
        DataError: The model was saved without its n-grams.
    """
    known = classifier.ngrams
    if known is None or len(known) == 0:
        raise DataError("the model has no n-grams to make texts of: name a FILE of texts")
    # Row r with a chance like 1 / r, as words are in any language.
    random = np.random.default_rng(seed)
    rows = np.exp(random.uniform(0, np.log(len(known)), (texts, ngrams))).astype(np.int64) - 1
    return [" ".join(known[row] for row in chosen) for chosen in rows.tolist()]


def measure(
    directory: Path, name: str, texts: list[str], threads: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Texts a second for each number of threads, and microseconds of single texts.

    Args:
        directory: Of the model.
        name: Of the texts.
        texts: What is labelled.
        threads: Numbers of threads.
        seconds: For each figure.
    """
    total = sum(len(text.encode()) for text in texts)
    batches = []
    for number in threads:
        classifier = Classifier.load(directory, threads=number)
        pace = _pace(classifier, texts, seconds)
        batches.append(
            {
                "threads": number,
                "texts_per_second": pace,
                "bytes_per_second": pace * total / len(texts),
            }
        )
    single = Classifier.load(directory)
    return {
        "name": name,
        "texts": len(texts),
        "bytes_per_text": total / len(texts),
        "coverage": float(np.mean(single.coverage(texts))),
        "batches": batches,
        "single": _single(single, texts, seconds),
    }


def _pace(classifier: Classifier, texts: list[str], seconds: float) -> float:
    """Texts a second of the fastest pass: what else the machine does only makes it slower."""
    classifier.predict(texts[:256])
    best = float("inf")
    until = time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        classifier.predict(texts)
        ended = time.perf_counter()
        best = min(best, ended - started)
        if ended >= until:
            return len(texts) / best


def _single(classifier: Classifier, texts: list[str], seconds: float) -> dict[str, float]:
    for text in texts[:64]:
        classifier.predict(text)
    taken = []
    until = time.perf_counter_ns() + int(seconds * 1e9)
    ended = 0
    while ended < until:
        for text in texts[:4096]:
            started = time.perf_counter_ns()
            classifier.predict(text)
            ended = time.perf_counter_ns()
            taken.append(ended - started)
            if ended >= until:
                break
    middle, high = np.percentile(taken, [50, 99]) / 1e3
    return {"p50_us": float(middle), "p99_us": float(high), "calls": len(taken)}


def _start(directory: Path) -> dict[str, Any]:
    """Seconds of a process's first steps, with kernels compiled before and with none."""
    _probe(directory, {})  # so that all kernels are compiled, if they can be kept
    found = {"cached": _probe(directory, {})}
    with tempfile.TemporaryDirectory(prefix="sparsedistill-") as empty:
        found["compiled"] = _probe(directory, {"NUMBA_CACHE_DIR": empty})
    return found


def _probe(directory: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    here = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - this very Python and a program of our own
        [sys.executable, "-c", _PROBE, str(directory)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    total = time.perf_counter() - started
    if done.returncode:
        raise DataError(f"a fresh process could not load the model:\n{done.stderr[-800:]}")
    return {**json.loads(done.stdout), "process": total}


def _texts(options: argparse.Namespace, classifier: Classifier) -> dict[str, list[str]]:
    names: list[str] = options.files
    if not names:
        return {
            f"{name}, made up": made_up_texts(classifier, texts=texts, ngrams=ngrams)
            for name, (texts, ngrams) in _MADE_UP.items()
        }
    check_inputs(names)
    found: list[str] = []
    total = 0
    for batch in read_batches(
        names, file_format=options.format, column=options.column, meter=Meter(names)
    ):
        found += [text.rstrip("\r\n") for text in batch.texts]
        total += batch.texts.nbytes
        if len(found) >= _MOST_TEXTS or total >= _MOST_BYTES:
            break
    if not found:
        raise DataError(f"{names[0]}: there is no text in it to measure on")
    return {Path(names[0]).name: found[:_MOST_TEXTS]}


def _threads(given: str) -> list[int]:
    try:
        found = [int(one) for one in given.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ConfigError(f"--threads takes numbers such as 1,2, not {given!r}")
    return found


def render(found: Mapping[str, Any]) -> list[str]:
    """The figures as lines of text."""
    packages = found["packages"]
    start, anew = found["start"]["cached"], found["start"]["compiled"]
    kept = "kernels from the cache" if not start["compiled"] else "kernels compiled: no cache"
    shape = table_shape(found["rows"], found["width"], found["hidden"], found["dtype"])
    lines = facts(
        [
            ("machine", f"{found['cpu']}, {found['cores']} cores, {found['platform']}"),
            (
                "versions",
                f"sparsedistill {found['sparsedistill']}, Python {found['python']}, "
                + ", ".join(f"{name} {packages[name]}" for name in ("numpy", "numba")),
            ),
            (
                "model",
                f"{found['model']}: {shape}, {size(found['bytes'])}",
            ),
            (
                "start",
                f"import {start['import']:.2f} s, load {start['load'] * 1e3:.0f} ms, first answer "
                f"{start['first_answer'] * 1e3:.0f} ms ({kept}); whole process "
                f"{start['process']:.2f} s",
            ),
            (
                "installed",
                f"the very first answer, with kernels to compile: {anew['first_answer']:.1f} s",
            ),
        ],
        width=100,
    )
    headings = ["texts", "number", "bytes each", "coverage", "threads", "texts/s", "MB/s"]
    rows = [
        [
            one["name"] if place == 0 else "",
            f"{one['texts']:,}" if place == 0 else "",
            f"{one['bytes_per_text']:,.0f}" if place == 0 else "",
            f"{one['coverage']:.0%}" if place == 0 else "",
            str(batch["threads"]),
            f"{batch['texts_per_second']:,.0f}",
            f"{batch['bytes_per_second'] / 1e6:,.1f}",
        ]
        for one in found["texts"]
        for place, batch in enumerate(one["batches"])
    ]
    single = [
        [one["name"], f"{one['single']['p50_us']:,.1f} µs", f"{one['single']['p99_us']:,.1f} µs"]
        for one in found["texts"]
    ]
    return [
        *lines,
        "",
        *table(headings, rows),
        "",
        *table(["one text a call", "p50", "p99"], single),
    ]
