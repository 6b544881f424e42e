"""How near the student comes to what the memory can give: bytes that must move, and at which rate.

For a model and some texts it counts, per text, what any program with this table has to read: the
text's bytes, the slots of the index that the look-up cannot do without, and the rows of the table,
the latter two in cache lines of 64 bytes, each counted once a text. Then it measures what this
machine reads a second: one after the other, by random lines of the index, and by random rows of the
table. Bytes over rates is a floor for the time of a text. `share` is that floor over
the time that was measured: 100 % would be a student that does nothing but wait for memory.

    python benchmarks/roofline.py runs/imdb/model ../shared/data/imdb/test.parquet --json roof.json

`replay` is a stricter floor for the rows: the same rows in the same order, read and added up as
words, nothing else. Texts share words, so most rows come from a cache, not from memory, and a
student may well be faster than random rows are; never faster than the replay and the rest.

Where the time goes is measured by the library's own functions, one after the other over 512 texts,
one thread; `logits` is the whole by its one loop, `predict` adds taking a list of `str` and giving
a list of labels. All times are the best of some passes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from sparsedistill.bags import Bags
from sparsedistill.classifier import Classifier
from sparsedistill.jit import kernel
from sparsedistill.ngram_index import BLOCK, UNKNOWN
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.kernels import hash_ngrams
from sparsedistill.text.tokens import token_hashes
from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sparsedistill.folded import FoldedModel

    Row = dict[str, Any]

LINE = 64
# Bytes read one after the other: far more than any cache holds.
_LARGE = 512 << 20
# Random lines that are read.
_READS = 4_000_000
# Texts that are timed, at least: a short set several times over.
_MANY = 20_000


def main() -> int:
    """Count, measure and print."""
    parser = argparse.ArgumentParser(description="Compare the student with the memory's speed.")
    parser.add_argument("model", type=Path, help="directory of a packaged model")
    parser.add_argument("texts", type=Path, help="Parquet file with a column `text`")
    parser.add_argument("--rows", type=int, help="the first so many texts (all)")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16", "int8"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    for path in (options.model, options.texts):
        if not path.exists():
            parser.error(f"no {path}")
    texts = read_texts(options.texts, options.rows)
    buffer = TextBuffer.from_strings(texts)
    classifier = Classifier.load(options.model)
    results: dict[str, list[Row]] = {"counted": [], "rates": [], "share": [], "parts": []}
    for dtype in options.dtypes:
        model = classifier.folded.converted(dtype)
        counted = count_bytes(model, buffer)
        results["counted"].append({"table": dtype, **counted})
        results["parts"].append({"table": dtype, **time_parts(model, buffer, texts, options)})
        for threads in options.threads:
            rates = measure_rates(model, buffer, threads, options.passes)
            results["rates"].append({"table": dtype, "threads": threads, **rates})
            share = reached(model, texts, counted, rates, threads, options.passes)
            results["share"].append({"table": dtype, "threads": threads, **share})
    about = {
        **environment(max(options.threads)),
        "texts": f"{len(texts):,} of {options.texts.parent.name}/{options.texts.name}",
        "table": f"{len(classifier.folded.table):,} x {classifier.folded.hidden}",
        "index_slots": len(classifier.folded.index.slots),
        "load": os.getloadavg()[0],
        "passes": options.passes,
    }
    print_tables(results, about)
    if options.json:
        options.json.write_text(json.dumps({"environment": about, **results}, indent=1), "utf-8")
    return 0


def read_texts(path: Path, rows: int | None) -> list[str]:
    """Return the texts as strings, all several times if they are few."""
    import pyarrow.parquet as pq

    texts: list[str] = pq.read_table(path, columns=["text"])["text"].to_pylist()[:rows]
    return texts * -(-_MANY // len(texts))


# What is counted.


def count_bytes(model: FoldedModel, texts: TextBuffer) -> Row:
    """Return bytes per text, and of the different lines of all texts together."""
    row_bytes = model.hidden * model.table.itemsize
    slot_lines, row_lines, ngrams, known = [], [], 0, 0
    for part in _blocks(texts):
        hashes, ends = token_hashes(part, model.spec)
        found = np.empty(len(hashes) * model.spec.max_n, np.uint64)
        offsets = np.empty(len(part) + 1, np.int64)
        hash_all(hashes, ends, model.spec.max_n, found, offsets)
        found = found[: offsets[-1]]
        needed = np.empty(len(found), np.bool_)
        rows = model.index.find(found)
        mark_needed(rows, ends, model.spec.max_n, needed)
        homes = (found & np.uint64(len(model.index.slots) - 1)).astype(np.int64)
        text_of = np.repeat(np.arange(len(part)), np.diff(offsets))
        lines = homes * model.index.slots.itemsize // LINE
        slot_lines.append(_distinct(lines[needed], text_of[needed]))
        ngrams += len(found)
        bags = model.bags(part)
        known += len(bags.rows)
        row_lines.append(
            _distinct(
                *lines_of_rows(
                    bags.rows, np.repeat(np.arange(len(bags)), np.diff(bags.offsets)), row_bytes
                )
            )
        )
    per_text = 1 / len(texts)
    slots, rows_read = np.concatenate(slot_lines), np.concatenate(row_lines)
    # An int8 row's scale is another line.
    scales = known if model.scale is not None else 0
    return {
        "ngrams": ngrams * per_text,
        "known": known * per_text,
        "text_bytes": texts.nbytes * per_text,
        "slot_bytes": len(slots) * LINE * per_text,
        "row_bytes": (len(rows_read) + scales) * LINE * per_text,
        "bytes": texts.nbytes * per_text + (len(slots) + len(rows_read) + scales) * LINE * per_text,
        "all_slots_mb": len(np.unique(slots)) * LINE / 1e6,
        "all_rows_mb": len(np.unique(rows_read)) * LINE / 1e6,
    }


def lines_of_rows(
    rows: NDArray[np.int32], text_of: NDArray[np.int64], row_bytes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cache lines that rows of the table lie on, and the text of each."""
    first = rows.astype(np.int64) * row_bytes // LINE
    last = (rows.astype(np.int64) * row_bytes + row_bytes - 1) // LINE
    counts = last - first + 1
    ends = np.cumsum(counts)
    steps = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    return np.repeat(first, counts) + steps, np.repeat(text_of, counts)


def _distinct(lines: NDArray[np.int64], text_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the lines, each once a text."""
    order = np.lexsort((lines, text_of))
    lines, text_of = lines[order], text_of[order]
    new = np.ones(len(lines), np.bool_)
    new[1:] = (np.diff(lines) != 0) | (np.diff(text_of) != 0)
    return lines[new]


@kernel
def hash_all(
    hashes: NDArray[np.uint64],
    ends: NDArray[np.int64],
    longest: int,
    ngrams: NDArray[np.uint64],
    offsets: NDArray[np.int64],
) -> None:
    """Hash all n-grams of texts, by text, first token and length."""
    offsets[0] = 0
    for text in range(len(ends) - 1):
        begin = offsets[text]
        last = ends[text + 1]
        offsets[text + 1] = begin + hash_ngrams(
            hashes, ends[text], last, last, longest, ngrams[begin:]
        )


@kernel
def mark_needed(
    rows: NDArray[np.int32], ends: NDArray[np.int64], longest: int, needed: NDArray[np.bool_]
) -> None:
    """Mark the n-grams that must be looked up: all that it begins with are in the index."""
    i = 0
    for text in range(len(ends) - 1):
        for first in range(ends[text], ends[text + 1]):
            alive = True
            for _ in range(min(longest, ends[text + 1] - first)):
                needed[i] = alive
                alive = alive and rows[i] != UNKNOWN
                i += 1


# What is measured.


@kernel
def read_words(words: NDArray[np.uint64]) -> np.uint64:
    """Add up words that lie one after the other."""
    total = np.uint64(0)
    for i in range(len(words)):
        total += words[i]
    return total


@kernel
def read_rows(table: NDArray[Any], rows: NDArray[np.int32]) -> np.uint64:
    """Add up the words of some rows."""
    total = np.uint64(0)
    for i in range(len(rows)):
        row = table[rows[i]]
        for j in range(len(row)):
            total += np.uint64(row[j])
    return total


def measure_rates(model: FoldedModel, texts: TextBuffer, threads: int, passes: int) -> Row:
    """Return bytes a second of this machine, by the way they are read."""
    random = np.random.default_rng(0)
    plain = np.ones(_LARGE // 8, np.uint64)
    # One word of a line is enough for the line to come.
    lines = model.index.slots.reshape(-1, LINE // model.index.slots.itemsize)[:, :1]
    table = as_words(model.table)
    row_lines = -(-table.shape[1] * table.itemsize // LINE)
    anywhere = random.integers(0, len(lines), _READS).astype(np.int32)
    rows = random.integers(0, len(table), max(100_000, _READS // row_lines)).astype(np.int32)
    replay = np.concatenate([model.bags(part).rows for part in _blocks(texts)])
    read_rows(table, rows)  # a table that lies in a file comes into memory
    with ThreadPoolExecutor(threads) as pool:

        def best(work: Callable[[Any], Any], whole: NDArray[Any]) -> float:
            parts = np.array_split(whole, threads)
            return best_of(passes, lambda: list(pool.map(work, parts)))

        row_bytes = table.shape[1] * table.itemsize
        return {
            "in_order_gb": plain.nbytes / best(read_words, plain) / 1e9,
            "lines_gb": LINE * _READS / best(lambda r: read_rows(lines, r), anywhere) / 1e9,
            "rows_gb": len(rows) * row_bytes / best(lambda r: read_rows(table, r), rows) / 1e9,
            "replay_gb": len(replay)
            * row_bytes
            / best(lambda r: read_rows(table, r), replay)
            / 1e9,
        }


def as_words(table: NDArray[Any]) -> NDArray[Any]:
    """Return the table as the widest words that its rows are made of."""
    row_bytes = table.shape[1] * table.itemsize
    word = next(
        word
        for word in (np.uint64, np.uint32, np.uint16, np.uint8)
        if row_bytes % np.dtype(word).itemsize == 0
    )
    return table.view(word)


def reached(
    model: FoldedModel, texts: list[str], counted: Row, rates: Row, threads: int, passes: int
) -> Row:
    """Return what `Classifier.predict` takes, and the share of it that memory alone would."""
    classifier = Classifier(model, threads=threads)
    classifier.predict(texts)
    seconds = best_of(passes, lambda: classifier.predict(texts)) / len(texts)
    front = counted["text_bytes"] / rates["in_order_gb"] + counted["slot_bytes"] / rates["lines_gb"]
    floor = front + counted["row_bytes"] / rates["rows_gb"]
    # The replay reads a row as often as it comes up in a text.
    repeated = counted["known"] * model.hidden * model.table.itemsize / rates["replay_gb"]
    return {
        "texts_per_s": 1 / seconds,
        "us": seconds * 1e6,
        "gb_per_s": counted["bytes"] / seconds / 1e9,
        "floor_us": floor / 1e3,
        "share": floor / 1e9 / seconds,
        "replay_floor_us": (front + repeated) / 1e3,
        "replay_share": (front + repeated) / 1e9 / seconds,
    }


def time_parts(
    model: FoldedModel, buffer: TextBuffer, texts: list[str], options: argparse.Namespace
) -> Row:
    """Return microseconds per text of each part of the work, with one thread."""
    bags = [model.bags(part) for part in _blocks(buffer)]
    # Bags without rows leave the activation and the last layer.
    empty = [Bags(bag.rows[:0], np.zeros_like(bag.offsets)) for bag in bags]
    classifier = Classifier(model)
    calls: dict[str, Callable[[], Any]] = {
        "to_bytes": lambda: TextBuffer.from_strings(texts),
        "tokenise": lambda: [token_hashes(part, model.spec) for part in _blocks(buffer)],
        "bags": lambda: [model.bags(part) for part in _blocks(buffer)],
        "rows_and_head": lambda: [model.bag_logits(bag) for bag in bags],
        "head": lambda: [model.bag_logits(bag) for bag in empty],
        "logits": lambda: model.logits(buffer),
        "predict": lambda: classifier.predict(texts),
    }
    for call in calls.values():
        call()
    took = {name: best_of(options.passes, call) / len(texts) * 1e6 for name, call in calls.items()}
    return {
        "to_bytes": took["to_bytes"],
        "tokenise": took["tokenise"],
        "look_up": took["bags"] - took["tokenise"],
        "gather": took["rows_and_head"] - took["head"],
        "head": took["head"],
        "logits": took["logits"],
        "predict": took["predict"],
    }


def best_of(passes: int, work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest pass."""
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _blocks(texts: TextBuffer) -> Iterator[TextBuffer]:
    for start in range(0, len(texts), BLOCK):
        yield texts.slice(start, min(start + BLOCK, len(texts)))


def print_tables(results: dict[str, list[Row]], about: Row) -> None:
    """Print what was counted and measured, and on what."""
    titles = {
        "counted": "per text: n-grams, bytes that must move; all texts: different lines",
        "rates": "this machine, GB/s: in order, random lines, random rows, the texts' rows again",
        "share": "Classifier.predict, and the time that memory alone would take",
        "parts": "microseconds per text, one thread, each by its own function",
    }
    console = Console(width=130)
    for name, rows in results.items():
        table = Table(title=titles[name], title_justify="left", box=None)
        for column in rows[0]:
            table.add_column(column.replace("_", " "), justify="right")
        for row in rows:
            table.add_row(*(_shown(key, value) for key, value in row.items()))
        console.print(table)
    console.print(about)


def _shown(name: str, value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, float):
        return str(value)
    if name.endswith("share"):
        return f"{100 * value:.0f} %"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


if __name__ == "__main__":
    sys.exit(main())
