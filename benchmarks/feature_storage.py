"""Ways to store the features of a shard: bytes, time to write, to read whole, to fetch a batch.

Peers: Parquet as a list and as a flat column under its encodings and codecs, Arrow IPC, plain
arrays in safetensors mapped into memory (what the stage `features` writes), bits packed by
ourselves, and no file at all (the texts looked up again). All have the same bags; what each gives
back is compared before it is timed. Files are in the page cache, nothing but the plain arrays is
flushed to the disk, one thread. The column `id` is left out: 8 bytes a text in each.

    python benchmarks/feature_storage.py --texts corpus.parquet --rows 500000 --json storage.json

"Order" says whether n-grams come back in the order of the text. Only `max_ngrams` needs it, and
that is applied before; but means over a bag are summed in another order then. A batch is 2048 bags
at random out of the open file; with "whole", all of the file is decoded for it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from feature_formats import FORMATS, Format, in_row_order, looked_up_again
from rich.console import Console
from rich.table import Table

from sparsedistill.building import build_vocabulary
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from storage import read_texts
from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sparsedistill.bags import Bags


QUICKSTART = Path("data/quickstart/corpus.txt")
BATCH = 2048


def main() -> int:
    """Measure each format and print what it takes."""
    parser = argparse.ArgumentParser(description="Compare ways to store features.")
    parser.add_argument("--texts", type=Path, nargs="+", default=[QUICKSTART], metavar="FILE")
    parser.add_argument("--rows", type=int, help="the first so many texts (all)")
    parser.add_argument("--size", type=int, default=1_000_000, help="rows of the vocabulary")
    parser.add_argument("--memory", default="1GB", help="for building the vocabulary")
    parser.add_argument("--threads", type=int, default=2, help="for building the vocabulary")
    parser.add_argument("--passes", type=int, default=5, help="the best of so many counts")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if missing := [str(path) for path in options.texts if not path.exists()]:
        parser.error(f"no file {missing}; experiments/quickstart.py writes the quickstart's")
    texts = read_buffer(options.texts, options.rows)
    if len(texts) == 0:
        parser.error("no texts")
    vocabulary = build_vocabulary(
        [texts], NgramSpec(), size=options.size, memory=options.memory, threads=options.threads
    )
    bags = vocabulary.bags(texts, threads=options.threads)
    about = {
        **environment(1),
        "data": [path.name for path in options.texts],
        "texts": len(bags),
        "ngrams": len(bags.rows),
        "ngrams_per_text": len(bags.rows) / max(1, len(bags)),
        "vocabulary": len(vocabulary),
        "entropy_bytes": entropy(bags) / 8,
    }
    pa.set_cpu_count(1)
    formats = [*FORMATS, looked_up_again(texts, vocabulary)]
    rows = [measure(form, bags, passes=options.passes) for form in formats]
    print_table(rows, about)
    if options.json:
        options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1), "utf-8")
    return 0


def read_buffer(files: list[Path], rows: int | None) -> TextBuffer:
    """Return the texts of all files, or the first so many."""
    texts = [
        text for file in files for batch in read_texts(file, on_bad=print) for text in batch if text
    ]
    return TextBuffer.from_strings(texts[:rows])


def entropy(bags: Bags) -> float:
    """Return the bits an n-gram takes if each is coded by its frequency alone."""
    counts = np.unique(bags.rows, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def measure(form: Format, bags: Bags, *, passes: int) -> dict[str, Any]:
    """Return bytes and the best times of one format, once its bags are seen to be the same."""
    expected = bags if form.ordered else in_row_order(bags)
    indices = np.random.default_rng(0).integers(0, len(bags), BATCH)
    with tempfile.TemporaryDirectory(prefix="sparsedistill-") as name:
        directory = Path(name)

        def write() -> None:
            shutil.rmtree(directory)
            directory.mkdir()
            form.write(directory, bags)

        write()
        size = sum(path.stat().st_size for path in directory.iterdir())
        check(form, form.read(directory), expected)
        fetch = form.open(directory) if form.open else partial(fetch_whole, form, directory)
        check(form, fetch(indices), expected.take(indices))
        batch = best(lambda: fetch(indices), passes * 4 if form.open else passes)
        wrote = best(write, passes)
        read = best(lambda: form.read(directory), passes)
    ngrams = max(1, len(bags.rows))
    return {
        "format": form.name,
        "order": form.ordered,
        "bytes_per_ngram": size / ngrams,
        "bytes_per_text": size / len(bags),
        "write_ns_per_ngram": wrote * 1e9 / ngrams,
        "read_ns_per_ngram": read * 1e9 / ngrams,
        "batch_ms": batch * 1e3,
        "batch_reads": "its bags" if form.open else "whole",
    }


def check(form: Format, got: Bags, expected: Bags) -> None:
    """Stop where a format does not give back what it got."""
    if not (
        np.array_equal(got.rows, expected.rows) and np.array_equal(got.offsets, expected.offsets)
    ):
        raise SystemExit(f"{form.name} gives back other bags than it was given")


def best(work: Callable[[], object], passes: int) -> float:
    """Return the seconds of the fastest pass."""
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def fetch_whole(form: Format, directory: Path, indices: NDArray[np.int64]) -> Bags:
    """Return some bags of a file that can only be read whole."""
    return form.read(directory).take(indices)


def print_table(rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """Print the rows and what they were measured on."""
    table = Table(box=None)
    for name in rows[0]:
        left = isinstance(rows[0][name], str)
        header = name.replace("_", "\n", 1).replace("_", " ")
        table.add_column(header, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        values = [f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()]
        table.add_row(*values)
    console = Console(width=140)
    console.print(table)
    console.print(about)


if __name__ == "__main__":
    sys.exit(main())
