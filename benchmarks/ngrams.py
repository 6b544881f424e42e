"""N-grams side by side with scikit-learn: choosing a vocabulary, and looking texts up in it.

Peers: `CountVectorizer.fit` with `max_features`, and `CountVectorizer.transform` with our
vocabulary. It has no threads; int32 counts are its best setting. Both give the same: what they give
is compared before a time is printed.

    python benchmarks/ngrams.py imdb_unsup.parquet --size 1000000 --memory 530MB --json ngrams.json

Each call runs in a process of its own, after one over a few hundred rows, which has its kernels
compiled. Memory is the peak of the process (as Linux counts it) less what it had with the texts,
and for `transform` the vocabulary, at hand. Times are the best of some passes, for the peer's fit
of one. Ours takes texts as the pipeline holds them, Arrow's buffers, and also as a list of `str`,
which the peer takes; then encoding them is part of it.

With `--peer-rows` the peer gets so many texts only, and time and memory are scaled by the number of
n-grams; ours of the same texts is compared with it. Its memory grows with the different n-grams, a
little slower than that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from ngram_kernels import count_occurrences
from ngrams_at_scale import PeakMemory
from rich.console import Console
from rich.table import Table

from sparsedistill.building import build_vocabulary
from sparsedistill.merging import add_up
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary
from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Task = dict[str, Any]

T = TypeVar("T")

SPEC = NgramSpec()
_FEW = 300
_ALL = 1 << 40


def main() -> int:
    """Measure all calls, compare what they give, and print what they took."""
    parser = argparse.ArgumentParser(description="Compare n-grams with scikit-learn.")
    parser.add_argument("texts", type=Path, help="Parquet file with a column `text`")
    parser.add_argument("--rows", type=int, help="the first so many texts (all)")
    parser.add_argument("--size", type=int, default=1_000_000, help="rows of the vocabulary")
    parser.add_argument("--memory", default="530MB", help="for our fit")
    parser.add_argument("--threads", type=int, default=2, help="of ours")
    parser.add_argument("--passes", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--peer-rows", type=int, metavar="N", help="the peer gets so many texts")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        task = json.loads(options.task)
        print(json.dumps(TASKS[task["name"]](task)))
        return 0
    if not options.texts.exists():
        parser.error(f"no file {options.texts}")
    with tempfile.TemporaryDirectory(prefix="sparsedistill-") as scratch:
        rows, about = measure(options, Path(scratch))
    print_table(rows, about)
    if options.json:
        options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1), "utf-8")
    return 0


def measure(
    options: argparse.Namespace, scratch: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row for every call, once all have given the same, and the conditions."""
    given = read_buffer({"texts": options.texts, "rows": options.rows})
    rows, ngrams = len(given), int(count_occurrences(given).sum())
    few = min(rows, options.peer_rows or rows)
    few_ngrams = int(count_occurrences(given.slice(0, few)).sum())
    del given
    task: Task = {name: getattr(options, name) for name in ("size", "memory", "threads", "passes")}
    task |= {"texts": str(options.texts.resolve()), "vocabulary": str(scratch / "ours")}

    def run(name: str, *, out: str | None = None, **change: Any) -> dict[str, Any]:  # noqa: ANN401
        where = {"out": str(scratch / out)} if out else {}
        return run_apart({**task, "name": name, "rows": rows, **where, **change})

    ours = run("fit", out="ours")
    strings = run("fit", strings=True)
    peer = run("peer fit", rows=few, out="peer")
    bags = run("transform", out="bags")
    bags_of_strings = run("transform", strings=True)
    matrix = run("peer transform", rows=few, out="matrix")
    same, sums = scratch / "ours", scratch / "matrix"
    if few < rows:
        same, sums = scratch / "few", scratch / "few-matrix"
        run("fit", rows=few, passes=1, out="few")
        run("peer transform", rows=few, passes=1, out="few-matrix", vocabulary=str(same))
    size = check_fit(Vocabulary.load(same), scratch / "peer", sums, options.size)
    known = check_rows(scratch / "bags", scratch / "matrix", few)
    counts = {"ngrams": ngrams, "measured": ngrams}
    peer_counts = {"ngrams": ngrams, "measured": few_ngrams}
    found = [
        row_of("fit: CountVectorizer", peer, peer, **peer_counts),
        row_of("fit: ours", ours, peer, scale=ngrams / few_ngrams, **counts),
        row_of("fit: ours, of str", strings, peer, scale=ngrams / few_ngrams, **counts),
        row_of("transform: CountVectorizer", matrix, matrix, **peer_counts),
        row_of("transform: ours", bags, matrix, scale=ngrams / few_ngrams, **counts),
        row_of("transform: ours, of str", bags_of_strings, matrix, ngrams / few_ngrams, **counts),
    ]
    about = {
        **environment(options.threads),
        "data": options.texts.name,
        "texts": rows,
        "peer_texts": few,
        "size": options.size,
        "memory": options.memory,
        "passes": options.passes,
        "compared": f"{size:,} rows of the vocabulary and their counts; {known:,} n-grams looked "
        f"up in {few:,} texts",
    }
    return found, about


def row_of(
    what: str,
    result: dict[str, Any],
    peer: dict[str, Any],
    scale: float = 1.0,
    *,
    ngrams: int,
    measured: int,
) -> dict[str, Any]:
    """Return a row of the table; what was measured is scaled from `measured` to `ngrams`.

    `scale` is that of the peer, for the ratios.
    """
    own = ngrams / measured if result is peer else 1.0
    scale = own if result is peer else scale
    seconds, peak = min(result["seconds"]) * own, result["peak"] * own
    return {
        "what": what,
        "ngrams": ngrams,
        "measured": measured,
        "seconds": seconds,
        "first_seconds": result["seconds"][0] * own,
        "million_per_s": ngrams / seconds / 1e6,
        "peak_mb": peak / 1e6,
        "times_faster": min(peer["seconds"]) * scale / seconds,
        "times_less_memory": peer["peak"] * scale / max(1, peak),
    }


def run_apart(task: Task) -> dict[str, Any]:
    """Run a task in a process of its own; returns what it says in its last line."""
    command = [sys.executable, __file__, task["texts"], "--task", json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task['name']} failed")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(task["name"], f"of {task['rows']:,} texts:", result, file=sys.stderr)
    return result


# What runs in a process of its own.


def fit(task: Task) -> dict[str, Any]:
    """Build our vocabulary."""
    texts: TextBuffer | list[str] = read_strings(task) if task.get("strings") else read_buffer(task)

    def build(rows: TextBuffer | list[str]) -> Vocabulary:
        buffer = rows if isinstance(rows, TextBuffer) else TextBuffer.from_strings(rows)
        how = {name: task[name] for name in ("size", "memory", "threads")}
        return build_vocabulary([buffer], SPEC, **how)

    warm_up_merge()
    build(texts.slice(0, _FEW) if isinstance(texts, TextBuffer) else texts[:_FEW])
    vocabulary, result = measured(lambda: build(texts), task["passes"])
    if "out" in task:
        vocabulary.save(task["out"])
    return result


def fit_peer(task: Task) -> dict[str, Any]:
    """Have scikit-learn choose a vocabulary."""
    from sklearn.feature_extraction.text import CountVectorizer

    texts = read_strings(task)

    def build(rows: Sequence[str]) -> Any:  # noqa: ANN401
        # What `fit` does, and lets the matrix go; here it tells the counts.
        peer = CountVectorizer(
            ngram_range=(SPEC.min_n, SPEC.max_n), max_features=task["size"], dtype=np.int32
        )
        return peer.fit_transform(rows), peer

    build(texts[:_FEW])
    (matrix, peer), result = measured(lambda: build(texts), 1)
    save(
        task,
        counts=np.asarray(matrix.sum(axis=0, dtype=np.int64)).ravel(),
        ngrams=TextBuffer.from_strings(peer.get_feature_names_out().tolist()),
    )
    return result


def transform(task: Task) -> dict[str, Any]:
    """Look texts up."""
    texts: TextBuffer | list[str] = read_strings(task) if task.get("strings") else read_buffer(task)
    vocabulary = Vocabulary.load(task["vocabulary"])

    def look_up(rows: TextBuffer | list[str]) -> Any:  # noqa: ANN401
        buffer = rows if isinstance(rows, TextBuffer) else TextBuffer.from_strings(rows)
        return vocabulary.bags(buffer, max_ngrams=_ALL, threads=task["threads"])

    look_up(texts.slice(0, _FEW) if isinstance(texts, TextBuffer) else texts[:_FEW])
    bags, result = measured(lambda: look_up(texts), task["passes"])
    save(task, rows=bags.rows, offsets=bags.offsets)
    return result


def transform_peer(task: Task) -> dict[str, Any]:
    """Have scikit-learn look texts up."""
    from sklearn.feature_extraction.text import CountVectorizer

    texts = read_strings(task)
    ngrams = list(Vocabulary.load(task["vocabulary"]).ngrams)
    peer = CountVectorizer(ngram_range=(SPEC.min_n, SPEC.max_n), vocabulary=ngrams, dtype=np.int32)
    peer.transform(texts[:_FEW])
    matrix, result = measured(lambda: peer.transform(texts), task["passes"])
    matrix.sort_indices()
    save(task, data=matrix.data, rows=matrix.indices, offsets=matrix.indptr)
    return result


TASKS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "fit": fit,
    "peer fit": fit_peer,
    "transform": transform,
    "peer transform": transform_peer,
}


def warm_up_merge() -> None:
    """Compile what merges runs, which few texts do not need."""
    hashes, counts = np.arange(4, dtype=np.uint64), np.ones(4, np.int64)
    add_up([(hashes, counts), (hashes, counts)])


def measured(work: Callable[[], T], passes: int) -> tuple[T, dict[str, Any]]:
    """Return what a call gives, its seconds in each pass, and the most memory the first took."""
    memory, seconds, peak = PeakMemory(), [], 0
    found: list[T] = []
    for _ in range(passes):
        found.clear()
        start = time.perf_counter()
        found.append(work())
        seconds.append(time.perf_counter() - start)
        peak = peak or memory.bytes()
    return found[0], {"seconds": seconds, "peak": peak}


def read_buffer(task: Task) -> TextBuffer:
    """Return the texts as the kernels take them."""
    return TextBuffer.from_arrow(_column(task))


def read_strings(task: Task) -> list[str]:
    """Return the texts as Python strings."""
    strings: list[str] = _column(task).to_pylist()
    return strings


def _column(task: Task) -> Any:  # noqa: ANN401
    import pyarrow.parquet as pq

    column = pq.read_table(task["texts"], columns=["text"])["text"]
    return column if task["rows"] is None else column.slice(0, task["rows"]).combine_chunks()


def save(task: Task, **arrays: Any) -> None:  # noqa: ANN401
    """Write arrays and strings where they can be compared."""
    if "out" not in task:
        return
    directory = Path(task["out"])
    directory.mkdir()
    for name, value in arrays.items():
        if isinstance(value, TextBuffer):
            np.save(directory / f"{name}-data.npy", value.data)
            np.save(directory / f"{name}-offsets.npy", value.offsets)
        else:
            np.save(directory / f"{name}.npy", value)


# What is compared.


def check_fit(ours: Vocabulary, peer: Path, sums: Path, size: int) -> int:
    """Stop where our vocabulary is not one that the peer could have chosen; returns its rows.

    At the lowest count the peer takes any n-grams, so above it both must have the same with the
    same counts, and at it each of ours must have that count in the peer's matrix.
    """
    counts = np.load(peer / "counts.npy")
    ngrams = TextBuffer(np.load(peer / "ngrams-data.npy"), np.load(peer / "ngrams-offsets.npy"))
    if len(counts) != len(ours):
        raise SystemExit(f"ours has {len(ours):,} n-grams, the peer's {len(counts):,}")
    lowest = int(ours.counts.min()) if len(ours) == size else 0
    if lowest and lowest != counts.min():
        raise SystemExit(f"the lowest count is {lowest} in ours, {counts.min()} in the peer's")
    mine, theirs = (
        dict(zip(part.take(above), count[above].tolist(), strict=True))
        for part, count in ((ours.ngrams, ours.counts), (ngrams, counts))
        for above in [np.flatnonzero(count > lowest)]
    )
    if mine != theirs:
        wrong = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
        raise SystemExit(f"{len(wrong):,} n-grams differ, such as {sorted(wrong)[:5]}")
    rows, data = np.load(sums / "rows.npy"), np.load(sums / "data.npy")
    totals = np.bincount(rows, weights=data, minlength=len(ours)).astype(np.int64)
    wrong_rows = np.flatnonzero(totals != ours.counts)
    if len(wrong_rows):
        raise SystemExit(
            f"{len(wrong_rows):,} counts are not the sums of the peer's matrix, the first that of "
            f"{ours[int(wrong_rows[0])]!r}"
        )
    return len(ours)


def check_rows(bags: Path, matrix: Path, texts: int) -> int:
    """Stop where a text has other n-grams than in the peer's matrix; returns how many it has."""
    offsets = np.load(bags / "offsets.npy")[: texts + 1]
    rows = np.load(bags / "rows.npy")[: offsets[-1]].astype(np.int64)
    their_rows = np.load(matrix / "rows.npy").astype(np.int64)
    columns = 1 + max(int(rows.max(initial=0)), int(their_rows.max(initial=0)))
    places, times = np.unique(_text_of_each(offsets) * columns + rows, return_counts=True)
    theirs = _text_of_each(np.load(matrix / "offsets.npy")) * columns + their_rows
    if not np.array_equal(places, theirs) or not np.array_equal(
        times, np.load(matrix / "data.npy")
    ):
        both = min(len(places), len(theirs))
        first = np.append(np.flatnonzero(places[:both] != theirs[:both]), both)[0]
        raise SystemExit(
            f"n-grams of texts are not those of the peer's matrix: ours has {len(places):,} "
            f"entries, it has {len(theirs):,}; they differ from the {first + 1:,}th on, or in times"
        )
    return len(rows)


def _text_of_each(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def print_table(rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """Print the rows and what they were measured on."""
    table = Table(box=None)
    for name in rows[0]:
        justify: Any = "left" if name == "what" else "right"
        table.add_column(name.replace("_", "\n", 1).replace("_", " "), justify=justify)
    for row in rows:
        table.add_row(
            *(
                f"{value:,.2f}"
                if isinstance(value, float)
                else f"{value:,}"
                if isinstance(value, int)
                else value
                for value in row.values()
            )
        )
    console = Console(width=130)
    console.print(table)
    console.print(about)


if __name__ == "__main__":
    sys.exit(main())
