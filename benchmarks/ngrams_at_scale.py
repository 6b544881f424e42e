"""What counting, choosing and looking up n-grams cost as a corpus grows to a billion of them.

Texts are made out of real ones: stretches of 3 to 20 words of any text, put together to texts that
are as long as the real ones are. So most n-grams come again as in a language, and new ones keep
coming. They are written as the shards of a corpus, and the stages `ngrams`, `vocabulary` and
`features` of the pipeline make of them what they make of any corpus, on the disk.

    python benchmarks/ngrams_at_scale.py imdb_unsup.parquet --directory DIR --json at-scale.json

Making the texts is not timed. Each size is measured in a process of its own, once, after a run over
two hundred texts. Memory is the most the process has during a stage beyond what it had before it;
the interpreter and the libraries are not in it. Costs are those of one occurrence of an n-gram.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from ngram_kernels import count_occurrences, read_buffer
from rich.console import Console
from rich.table import Table

from sparsedistill.jit import kernel
from sparsedistill.memory import give_back, parse_size
from sparsedistill.merging import add_up
from sparsedistill.text.buffers import TextBuffer, frozen
from sparsedistill.text.identity import text_ids
from storage import ArtifactStore, write_table
from tasks import features, ngrams, vocabulary
from tasks.corpus import shard_recipe
from tasks.environment import environment
from tasks.shards import TEXTS_FILE, TextShard, read_shard, text_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from storage import Artifact
    from tasks.stage import Job, Stage

SHORTEST, LONGEST = 3, 20
# Texts of `train`, and texts made at a time.
_TRAIN, _PIECE = 200, 10_000
_SPACE = 0x20


def main() -> int:
    """Measure each size and print what it takes."""
    parser = argparse.ArgumentParser(description="Measure the n-gram stages on growing corpora.")
    parser.add_argument("texts", type=Path, nargs="+", help="Parquet files with a column `text`")
    parser.add_argument("--ngrams", type=float, nargs="+", default=[1e7, 1e8, 1e9], metavar="N")
    parser.add_argument("--memory", default="1GB", help="for one stage")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=1_000_000, help="rows of the vocabulary")
    parser.add_argument("--rows-per-shard", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="for the stores, which are removed again")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        task = json.loads(options.task)
        print(json.dumps((make_texts if task["making"] else measure)(task)))
        return 0
    rows = [run_size(options, int(size)) for size in sorted(options.ngrams)]
    about = {
        **environment(options.threads),
        "data": [path.name for path in options.texts],
        **{name: getattr(options, name) for name in ("memory", "size", "rows_per_shard", "seed")},
        "cost_of_largest_to_smallest": rows[-1]["ns_per_ngram"] / rows[0]["ns_per_ngram"],
    }
    print_table(rows, about)
    if options.json:
        options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1), "utf-8")
    return 0


def run_size(options: argparse.Namespace, size: int) -> dict[str, Any]:
    """Make the texts of one size and run the stages over them, each in a process of its own."""
    if options.directory:
        Path(options.directory).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ngrams-at-scale-", dir=options.directory) as place:
        task = {
            "texts": [str(path.resolve()) for path in options.texts],
            "store": str(Path(place) / "store"),
            "ngrams": size,
            "memory": parse_size(options.memory),
            **{name: getattr(options, name) for name in ("size", "threads", "seed")},
            "rows": options.rows_per_shard,
        }
        made = run_apart({**task, "making": True})
        return run_apart({**task, "making": False, "made": made})


def run_apart(task: dict[str, Any]) -> dict[str, Any]:
    """Run a task in a process of its own; returns what it says in its last line."""
    command = [sys.executable, __file__, *task["texts"], "--task", json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task['ngrams']:,} n-grams failed")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(result, file=sys.stderr)
    return result


# Making texts.


def make_texts(task: dict[str, Any]) -> dict[str, Any]:
    """Write shards until they have the n-grams wanted, and one more for the labelled texts."""
    source = read_buffer(task["texts"])
    store = ArtifactStore(task["store"])
    first = np.zeros(len(source) + 1, np.int64)
    starts, ends = np.empty((2, source.nbytes // 2 + len(source)), np.int64)
    n = find_words(source.data, source.offsets, first, starts, ends)
    words = (frozen(first, np.int64), frozen(starts[:n], np.int64), frozen(ends[:n], np.int64))
    train = source.slice(0, min(_TRAIN, len(source)))
    left = task["ngrams"] - int(count_occurrences(train).sum())
    shards: list[str] = []
    random = np.random.default_rng(task["seed"])
    while left > 0 or not shards:
        pieces: list[TextBuffer] = []
        rows = task["rows"]
        while rows and (left > 0 or not pieces):
            piece = splice(source, words, random, min(rows, _PIECE))
            found = np.cumsum(count_occurrences(piece))
            kept = min(len(piece), int(np.searchsorted(found, max(left, 1))) + 1)
            pieces.append(piece.slice(0, kept))
            left -= int(found[kept - 1])
            rows -= kept
        shards.append(write_shard(store, TextBuffer.concat(pieces)))
    return {"shards": [*shards, write_shard(store, train)]}


def splice(
    source: TextBuffer,
    words: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    random: np.random.Generator,
    rows: int,
) -> TextBuffer:
    """Return new texts, each as long, in words, as some text of the source."""
    lengths = np.diff(words[0])[random.integers(0, len(source), rows)]
    # For each word the text, where in it a stretch begins, and its length: as many as can be used.
    draws = random.integers(0, 1 << 31, (int(lengths.sum()) // SHORTEST + 2 * rows, 3))
    room = source.nbytes * 2 * rows // max(1, len(source)) + (1 << 20)
    while True:
        data, offsets = np.empty(room, np.uint8), np.zeros(rows + 1, np.int64)
        if splice_rows(source.data, words, lengths, draws, (data, offsets)):
            return TextBuffer(data[: offsets[-1]], offsets)
        room *= 2


@kernel
def find_words(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    first: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> int:
    """Write where words (what is between spaces) start and end; `first` is each text's first."""
    n = 0
    for row in range(len(offsets) - 1):
        inside = False
        for at in range(offsets[row], offsets[row + 1]):
            if (data[at] > _SPACE) != inside:
                if inside:
                    ends[n] = at
                    n += 1
                else:
                    starts[n] = at
                inside = not inside
        if inside:
            ends[n] = offsets[row + 1]
            n += 1
        first[row + 1] = n
    return n


@kernel
def splice_rows(
    data: NDArray[np.uint8],
    words: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    lengths: NDArray[np.int64],
    draws: NDArray[np.int64],
    out: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> bool:
    """Put stretches of words together; returns whether there was room."""
    first, starts, ends = words
    text, offsets = out
    write, draw = 0, 0
    for row in range(len(lengths)):
        left = lengths[row]
        while left > 0 and draw < len(draws):
            source = draws[draw, 0] % (len(first) - 1)
            among = first[source + 1] - first[source]
            wanted = min(left, SHORTEST + draws[draw, 2] % (LONGEST - SHORTEST + 1))
            size = min(wanted, among)
            if size > 0:
                word = first[source] + draws[draw, 1] % (among - size + 1)
                begin, end = starts[word], ends[word + size - 1]
                if write + end - begin + 1 > len(text):
                    return False
                if write > offsets[row]:
                    text[write] = _SPACE
                    write += 1
                for at in range(begin, end):
                    text[write] = data[at]
                    write += 1
                left -= size
            draw += 1
        offsets[row + 1] = write
    return True


def write_shard(store: ArtifactStore, texts: TextBuffer) -> str:
    """Write a shard as the stage `corpus` does; returns its key."""
    ids = text_ids(texts)
    with store.create(shard_recipe(hashlib.sha256(ids.tobytes()).hexdigest())) as writer:
        column = pa.LargeStringArray.from_buffers(
            len(texts), pa.py_buffer(texts.offsets), pa.py_buffer(texts.data)
        )
        write_table(writer.path(TEXTS_FILE), text_table(ids, column))
        writer.set_rows(TEXTS_FILE, len(texts))
        writer.statistics["rows"] = len(texts)
    return writer.artifact.key


# Measuring.


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Run the stages over a store of texts and return the row of this size."""
    store = ArtifactStore(task["store"])
    shards = [_open_shard(store, key) for key in task["made"]["shards"]]
    warm_up(task, shards[-1])
    with Times(Path(task["store"])) as times:
        counts, chosen, looked_up = run_stages(task, store, shards, times)
    statistics: Any = chosen.statistics
    n, took = statistics["occurrences"], times.seconds
    return {
        "ngrams": n,
        "texts": sum(shard.rows for shard in shards),
        "shards": len(shards) - 1,
        "distinct": statistics["distinct"],
        "rows": statistics["rows"],
        **{f"{name}_s": seconds for name, seconds in took.items()},
        **{f"{name}_million_per_s": n / seconds / 1e6 for name, seconds in took.items()},
        "ns_per_ngram": sum(took.values()) * 1e9 / n,
        **{f"{name}_peak_mb": size / 1e6 for name, size in times.peaks.items()},
        "texts_mb": _megabytes(store.get(one.input.kind, one.input.key) for one in shards),
        "counts_mb": _megabytes(counts),
        "spill_mb": times.spilled / 1e6,
        "features_mb": _megabytes(looked_up),
    }


def run_stages(
    task: dict[str, Any], store: ArtifactStore, shards: list[TextShard], times: Times
) -> tuple[list[Artifact], Artifact, list[Artifact]]:
    """Count, choose and look up; returns what was made."""
    how = {"memory": task["memory"], "threads": task["threads"]}
    config = ngrams.NgramsConfig()
    size = vocabulary.VocabularyConfig(size=task["size"])
    jobs = ngrams.jobs(config, shards[:-1], shards[-1], **how)
    counts = times.run("count", ngrams.STAGE, jobs, store)
    jobs = vocabulary.jobs(size, config, shards, counts, {}, **how)
    (chosen,) = times.run("choose", vocabulary.STAGE, jobs, store)
    jobs = features.jobs(features.FeaturesConfig(), shards, chosen, threads=task["threads"])
    return counts, chosen, times.run("extract", features.STAGE, jobs, store)


def warm_up(task: dict[str, Any], train: TextShard) -> None:
    """Compile all kernels, on a few texts."""
    hashes, counts = np.arange(4, dtype=np.uint64), np.ones(4, np.int64)
    add_up([(hashes, counts), (hashes, counts)])
    few = read_shard(ArtifactStore(task["store"]), train.input).texts
    with tempfile.TemporaryDirectory(prefix="sparsedistill-") as directory:
        store, middle = ArtifactStore(directory), len(few) // 2
        halves = [few.slice(0, middle), few.slice(middle, len(few))]
        shards = [_open_shard(store, write_shard(store, half)) for half in halves]
        run_stages(task, store, shards, Times(Path(directory)))


def _open_shard(store: ArtifactStore, key: str) -> TextShard:
    artifact = store.get("corpus_shard", key)
    return TextShard(key, artifact.as_input(), artifact.entry(TEXTS_FILE).rows or 0)


def _megabytes(artifacts: Iterable[Artifact]) -> float:
    return sum(artifact.manifest.size for artifact in artifacts) / 1e6


class Times:
    """Seconds, memory and scratch files of stages.

    Attributes:
        seconds: By name.
        peaks: Bytes, by name.
        spilled: The most bytes that were in scratch files at once.
    """

    def __init__(self, store: Path) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.spilled = 0
        self._store = store
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    def run(self, name: str, stage: Stage, jobs: list[Job], store: ArtifactStore) -> list[Artifact]:
        """Run jobs one after the other; returns what they made."""
        memory, start = PeakMemory(), time.perf_counter()
        outcomes = [stage.run(job, store) for job in jobs]
        self.seconds[name] = time.perf_counter() - start
        self.peaks[name] = memory.bytes()
        return [store.get(outcome.kind, outcome.key) for outcome in outcomes]

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            with contextlib.suppress(OSError):
                found = self._store.glob(".tmp/*/.scratch-*/*")
                self.spilled = max(self.spilled, sum(file.stat().st_size for file in found))


class PeakMemory:
    """The most memory that this process has, from now on, beyond what it has now.

    Where a process cannot forget its peak (anywhere but on Linux), beyond its peak until now.
    """

    def __init__(self) -> None:
        gc.collect()
        give_back()  # what was freed and kept would hide what comes
        self._before = _status("VmRSS") or _most()
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self._before = _most()

    def bytes(self) -> int:
        """Return how much that is."""
        return (_status("VmHWM") or _most()) - self._before


def _status(name: str) -> int:
    path = Path("/proc/self/status")
    text = path.read_text("utf-8") if path.exists() else ""
    return int(text.split(f"{name}:")[1].split()[0]) * 1024 if f"{name}:" in text else 0


def _most() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def print_table(rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """Print a column for each size, and what it was measured on."""
    table = Table(box=None)
    table.add_column("")
    for row in rows:
        table.add_column(f"{row['ngrams']:,}", justify="right")
    for name in rows[0]:
        values = [f"{r[name]:,.2f}" if isinstance(r[name], float) else f"{r[name]:,}" for r in rows]
        table.add_row(name.replace("_", " "), *values)
    console = Console(width=110)
    console.print(table)
    console.print(about)
    ratio = about["cost_of_largest_to_smallest"]
    console.print(f"An n-gram of the most costs {ratio:.2f} times what one of the fewest costs.")


if __name__ == "__main__":
    sys.exit(main())
