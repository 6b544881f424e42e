"""Where the time of counting and looking up n-grams goes, and how far that is from the machine.

Each step runs alone, in one thread, through the library's own functions; steps that are fused there
(to tokenise, to hash, to scatter) are also timed apart, and what is left is said to be so.

    python benchmarks/ngram_kernels.py imdb_unsup.parquet --rows 20000 --json ngram-kernels.json

`bytes` are those that the step must move between the core and what lies beyond its own caches, for
one item, counted from the algorithm: reads and writes once each, a cache line for each slot that is
touched at random. What stays in the second-level cache counts nothing, so a step may have none. The
share is that of the bandwidth of copying, measured here in the same way: read and written bytes.
A slot of the vocabulary's index is one such random read, in a table of the index's size.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from sparsedistill.counted import CountedHashes, CountSource
from sparsedistill.merging import merge_counted
from sparsedistill.ngram_index import BLOCK, NgramIndex, look_up_rows
from sparsedistill.selection import finish, select_top
from sparsedistill.spill import Run
from sparsedistill.text import kernels, partitions
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.counting import NgramCounter, most_ngrams
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.recovery import recover
from sparsedistill.text.tokens import token_hashes
from sparsedistill.vocabulary import Vocabulary
from storage import ArtifactStore, Recipe
from tasks.counts import CountFile, write_counts
from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Tokens = list[tuple[NDArray[np.uint64], NDArray[np.int64]]]

P = ParamSpec("P")
R = TypeVar("R")

SPEC = NgramSpec()
RUNS, LINE = 8, 64
# Words of the arrays that bandwidth is measured on, and reads in a table.
_WORDS, _READS = 1 << 25, 1 << 23
_ALL = 1 << 40


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for this process only: these call kernels of other files, which may change."""
    return cast("Callable[P, R]", numba.njit(nogil=True)(function))


@dataclass
class Steps:
    """What has been measured: the least seconds of each step."""

    tokens: int = 0
    ngrams: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    items: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    _now: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(
        self, step: str, item: str = "n-gram", count: int = 0, size: float = 0
    ) -> Iterator[None]:
        """Add what the block takes to a step of this pass; see `say`."""
        self.say(step, item, count or self.ngrams, size)
        start = time.perf_counter()
        yield
        self._now[step] = self._now.get(step, 0.0) + time.perf_counter() - start

    def end_pass(self, *, counts: bool) -> None:
        """Take the pass in, unless it was to warm up."""
        if counts:
            for step, seconds in self._now.items():
                self.seconds[step] = min(seconds, self.seconds.get(step, seconds))
        self._now.clear()

    def say(self, step: str, item: str, count: int, size: float) -> None:
        """Note of which items a step has how many, and the bytes each moves."""
        self.items[step] = (item, count, size)


def main() -> int:
    """Measure the machine and each step, and print how they compare."""
    parser = argparse.ArgumentParser(description="Measure the steps of n-grams one by one.")
    parser.add_argument("texts", type=Path, help="Parquet file with a column `text`")
    parser.add_argument("--rows", type=int, default=20_000, help="the first so many texts")
    parser.add_argument("--size", type=int, default=1_000_000, help="rows of the vocabulary")
    parser.add_argument("--passes", type=int, default=5, help="the best of so many counts")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    pa.set_cpu_count(1)
    texts = read_buffer([options.texts], options.rows)
    tokens = sum(len(hashes) for hashes, _ in tokens_of(texts))
    steps = Steps(tokens, int(count_occurrences(texts).sum()))
    for number in range(options.passes + 1):
        with tempfile.TemporaryDirectory(prefix="sparsedistill-") as scratch:
            slots = one_pass(steps, texts, options.size, Path(scratch))
        steps.end_pass(counts=number > 0)
    machine = measure_machine(slots, options.passes)
    rows = rows_of(steps, machine)
    about = {**environment(1), "data": options.texts.name, "texts": len(texts), "slots": slots}
    about |= {"bytes": texts.nbytes, "size": options.size, "passes": options.passes}
    about |= {"tokens": steps.tokens, "ngrams": steps.ngrams}
    print_tables(rows, machine, about)
    if options.json:
        found = {"environment": about, "machine": machine, "rows": rows}
        options.json.write_text(json.dumps(found, indent=1), "utf-8")
    return 0


def read_buffer(files: Sequence[Path], rows: int | None = None) -> TextBuffer:
    """Return the texts of all files, or the first so many."""
    columns = [pq.read_table(file, columns=["text"])["text"] for file in files]
    texts = TextBuffer.concat([TextBuffer.from_arrow(column) for column in columns])
    return texts if rows is None else texts.slice(0, min(rows, len(texts)))


def count_occurrences(texts: TextBuffer) -> NDArray[np.int64]:
    """Return how many n-grams each text has."""
    tokens = np.concatenate([np.zeros(0, int), *(np.diff(ends) for _, ends in tokens_of(texts))])
    lengths = np.arange(SPEC.min_n, SPEC.max_n + 1)[:, None]
    return np.asarray(np.maximum(tokens - lengths + 1, 0).sum(axis=0))


def tokens_of(texts: TextBuffer) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Yield the hashes of tokens, and where those of each text end, as `NgramIndex` takes them."""
    for start in range(0, len(texts), BLOCK):
        yield token_hashes(texts.slice(start, min(start + BLOCK, len(texts))), SPEC)


# The steps.


def one_pass(steps: Steps, texts: TextBuffer, size: int, scratch: Path) -> int:
    """Run every step once; returns the slots of the vocabulary's index."""
    count = steps.tokens
    with steps.time("tokenise, hash tokens", "token", count, texts.nbytes / count + 8):
        tokens = list(tokens_of(texts))
    with steps.time("hash n-grams", size=8 * count / steps.ngrams):
        for hashes, ends in tokens:
            hash_only(hashes, ends, SPEC.max_n)
    parts = count_steps(steps, texts)
    entries = sum(len(part) for part in parts)
    merge_steps(steps, texts, scratch)
    parquet_steps(steps, parts, scratch)
    # Counts are looked at five times: checked for both limits, summed, compared with both cut-offs.
    with steps.time("select", "different n-gram", entries, 5 * 8):
        selection = select_top(parts, size=size)
    with steps.time("recover strings", size=texts.nbytes / steps.ngrams):
        found, strings = recover([texts], SPEC, selection.hash)
    rows = selection.rows
    # Strings are hashed, moved twice, and compared; and some twenty columns are gone through.
    moved = 6 * strings.nbytes / rows + 20 * 8
    with steps.time("order rows, check hashes", "row", rows, moved):
        chosen = finish(selection, found, strings)
    with steps.time("build the index"):
        index = NgramIndex.build(chosen.hashes, np.zeros(0, np.uint64))
    # Slots are zeroed, looked at, and written.
    steps.say("build the index", "row", rows, 8 + 8 * len(index.slots) / rows + 2 * LINE)
    vocabulary = Vocabulary(SPEC, *chosen, np.zeros(rows, np.int64))
    look_up_steps(steps, texts, tokens, vocabulary)
    return len(vocabulary.index.slots)


def count_steps(steps: Steps, texts: TextBuffer) -> list[CountedHashes]:
    """Scatter, gather, sort and count; returns the counts."""
    most = most_ngrams(texts.nbytes, len(texts), SPEC)
    into = partitions.make_partitions(SPEC, occurrences=most, threads=1, largest=1 << 16)
    how = kernels.rules(SPEC.tokenizer), (0, 0, len(texts)), (SPEC.min_n, SPEC.max_n)
    with steps.time("scatter, all of it", size=texts.nbytes / steps.ngrams + 8):
        partitions.scatter_rows(texts.data, texts.offsets, *how, into, 0)
    parts = []
    occurrences = into.occurrences()
    for partition in np.flatnonzero(occurrences).tolist():
        with steps.time("gather", size=8):
            hashes = np.empty(int(occurrences[partition]), np.uint64)
            partitions.gather_partition(into, partition, 0, hashes)
        with steps.time("sort"):
            hashes.sort()
        with steps.time("count runs"):
            different, counts = np.empty_like(hashes), np.empty(len(hashes), np.int64)
            found = partitions.count_runs(hashes, different, counts)
        order = SPEC.min_n + (partition >> into.bits)
        parts.append(CountedHashes(order, different[:found].copy(), counts[:found].copy()))
    del into
    with steps.time("count, as NgramCounter does", size=texts.nbytes / steps.ngrams + 16):
        total = sum(len(part) for part in counted(texts))
    distinct = sum(len(part) for part in parts)
    if total != distinct:
        raise SystemExit(f"the counter has {total:,} different n-grams, the steps {distinct:,}")
    return parts


def counted(texts: TextBuffer) -> list[CountedHashes]:
    """Count the n-grams of some texts."""
    most = most_ngrams(texts.nbytes, len(texts), SPEC)
    counter = NgramCounter(SPEC, memory=None, occurrences=most)
    counter.add(texts)
    return list(counter.parts())


def merge_steps(steps: Steps, texts: TextBuffer, scratch: Path) -> None:
    """Write runs of parts of the texts, read them, and merge them out of memory."""
    cuts = [cut * len(texts) // RUNS for cut in range(RUNS + 1)]
    counts = [counted(texts.slice(*span)) for span in pairwise(cuts)]
    entries = sum(len(part) for parts in counts for part in parts)
    with steps.time("spill: write", "entry", entries, 2 * 16):
        runs = [Run.write(scratch, parts) for parts in counts]
    with steps.time("spill: read", "entry", entries, 2 * 16):
        for run in runs:
            read_all_parts(run)
    name = f"merge {RUNS} runs, with reading"
    with steps.time(name):
        merged = sum(len(p) for p in merge_counted(runs, memory=1 << 30, spill=None))
    # Read, checked, put together, read into the table; what comes out is written, and copied.
    steps.say(name, "entry", entries, 2 * 16 + 8 + 2 * 16 + 8 + 16 + 3 * 16 * merged / entries)


def read_all_parts(source: CountSource) -> None:
    """Read counts, and let them go."""
    for order in source.entries:
        for _ in source.parts(order):
            pass


def parquet_steps(steps: Steps, parts: list[CountedHashes], scratch: Path) -> None:
    """Write counts as the stage `ngrams` does, and read them as the vocabulary's."""
    store = ArtifactStore(scratch / "store")
    with store.create(Recipe("ngrams", 1, {})) as writer, steps.time("counts to Parquet"):
        entries = write_counts(parts, SPEC, writer)
    with steps.time("counts from Parquet"):
        read_all_parts(CountFile(writer.artifact, SPEC))
    count = sum(entries.values())
    size = 16 + writer.artifact.manifest.size / max(1, count)
    for name in ("counts to Parquet", "counts from Parquet"):
        steps.say(name, "different n-gram", count, size)


def look_up_steps(steps: Steps, texts: TextBuffer, tokens: Tokens, vocabulary: Vocabulary) -> None:
    """Look texts up, from the text and from the hashes of its tokens."""
    with steps.time("look up, from texts"):
        bags = vocabulary.bags(texts, max_ngrams=_ALL)
    table, known = (vocabulary.index.slots, vocabulary.index.row_bits), 0
    with steps.time("look up, from tokens"):
        for hashes, ends in tokens:
            rows = np.empty(len(hashes) * SPEC.max_n, np.int32)
            offsets = np.empty(len(ends), np.int64)
            look_up_rows(hashes, ends, (SPEC.min_n, SPEC.max_n), table, _ALL, rows, offsets)
            known += int(offsets[-1])
    if known != len(bags.rows):
        raise SystemExit(f"{known:,} known n-grams by tokens, {len(bags.rows):,} by texts")
    n = steps.ngrams
    # A slot each; rows are written, and copied once they are counted.
    lines = LINE + 3 * 4 * known / n
    steps.say("look up, from tokens", "n-gram", n, lines)
    steps.say("look up, from texts", "n-gram", n, lines + texts.nbytes / n)


@compiled
def hash_only(hashes: NDArray[np.uint64], ends: NDArray[np.int64], longest: int) -> np.uint64:
    """Hash the n-grams of all texts and leave them in the cache."""
    ngrams = np.empty(64 * longest, np.uint64)
    last = np.uint64(0)
    for text in range(len(ends) - 1):
        end = ends[text + 1]
        for token in range(ends[text], end, 64):
            n = kernels.hash_ngrams(hashes, token, min(token + 64, end), end, longest, ngrams)
            last ^= ngrams[n - 1]
    return last


# The machine.


def measure_machine(slots: int, passes: int) -> dict[str, float]:
    """Return bandwidths in GB/s, and times in ns of reads in a table of so many slots."""
    words, other = np.ones(_WORDS, np.uint64), np.zeros(_WORDS, np.uint64)
    random = np.random.default_rng(0)
    where = random.integers(0, slots, _READS, np.uint64)
    table = random.permutation(slots).astype(np.uint64)
    # One circle through all slots, in random order.
    circle = np.empty(slots, np.uint64)
    circle[table.astype(np.int64)] = np.roll(table, -1)
    steps = Steps()
    for number in range(passes + 1):
        with steps.time("read"):
            read_all(words)
        with steps.time("copy"):
            np.copyto(other, words)
        with steps.time("independent"):
            read_random(table, where)
        with steps.time("dependent"):
            follow(circle, _READS >> 2)
        steps.end_pass(counts=number > 0)
    found = steps.seconds
    return {
        "read_gb_per_s": 8 * _WORDS / found["read"] / 1e9,
        "copy_gb_per_s": 16 * _WORDS / found["copy"] / 1e9,
        "independent_read_ns": found["independent"] * 1e9 / _READS,
        "dependent_read_ns": found["dependent"] * 1e9 / (_READS >> 2),
    }


@compiled
def read_all(words: NDArray[np.uint64]) -> np.uint64:
    """Read one after the other."""
    total = np.uint64(0)
    for i in range(len(words)):
        total += words[i]
    return total


@compiled
def read_random(table: NDArray[np.uint64], where: NDArray[np.uint64]) -> np.uint64:
    """Read anywhere; where does not depend on what was read."""
    total = np.uint64(0)
    for i in range(len(where)):
        total += table[where[i]]
    return total


@compiled
def follow(table: NDArray[np.uint64], reads: int) -> np.uint64:
    """Read where what was read points to."""
    at = np.uint64(0)
    for _ in range(reads):
        at = table[at]
    return at


def rows_of(steps: Steps, machine: dict[str, float]) -> list[dict[str, Any]]:
    """Return a row for each step, in the order of the work."""
    apart = steps.seconds["tokenise, hash tokens"] + steps.seconds["hash n-grams"]
    steps.say("scatter, what is left", "n-gram", steps.ngrams, 8)
    taken = {}
    for step, seconds in steps.seconds.items():
        taken[step] = seconds
        if step == "scatter, all of it":
            taken["scatter, what is left"] = max(1e-9, seconds - apart)
    rows = []
    for step, seconds in taken.items():
        item, count, size = steps.items[step]
        speed = size * count / seconds / 1e9
        figures = {
            "ns_per_ngram": seconds * 1e9 / steps.ngrams,
            "items": count,
            "ns_per_item": seconds * 1e9 / count,
            "bytes_per_item": float(size),
            "gb_per_s": speed,
            "share_of_copy": speed / machine["copy_gb_per_s"],
        }
        rows.append({"step": step, "item": item, **figures})
    return rows


def print_tables(
    rows: list[dict[str, Any]], machine: dict[str, float], about: dict[str, Any]
) -> None:
    """Print the machine, the steps and what they were measured on."""
    table = Table(box=None)
    for name in rows[0]:
        justify: Any = "left" if name in ("step", "item") else "right"
        table.add_column(name.replace("_", " "), justify=justify)
    for row in rows:
        step, item, *figures = row.values()
        table.add_row(
            step, item, *(f"{v:,.{2 * isinstance(v, float)}f}" if v else "" for v in figures)
        )
    console = Console(width=130)
    console.print({name: round(value, 2) for name, value in machine.items()})
    console.print(table)
    console.print(about)


if __name__ == "__main__":
    sys.exit(main())
