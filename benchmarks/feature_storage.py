"""Ways to store the features of a shard: bytes, time to write, to read whole, to fetch a batch.

Peers: Parquet as a list and as a flat column under its encodings and codecs, Arrow IPC, raw arrays
mapped into memory, two packings of our own, and no file at all (the texts looked up again). All
have the same bags; what each gives back is compared before it is timed. Files are in the page
cache, nothing is flushed, one thread. The column `id` is left out: 8 bytes a text in each.

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from sparsedistill.bags import Bags
from sparsedistill.building import build_vocabulary
from sparsedistill.jit import kernel
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from storage import read_table, read_texts, write_table
from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sparsedistill.vocabulary import Vocabulary

    Fetch = Callable[[NDArray[np.int64]], Bags]
    Settings = dict[str, Any]

QUICKSTART = Path("data/quickstart/corpus.txt")
BATCH = 2048
GROUP_TEXTS = 50_000
GROUP_NGRAMS = 1 << 20


@dataclass(frozen=True, slots=True)
class Format:
    """One way to store bags: files below a directory.

    Attributes:
        name: In the table.
        write: Makes the files of bags; called with the directory and them.
        read: All bags out of them.
        open: Returns what fetches some bags; None where that decodes the whole.
        ordered: Whether n-grams come back in the order of the text.
    """

    name: str
    write: Callable[..., None]
    read: Callable[..., Bags]
    open: Callable[..., Fetch] | None = None
    ordered: bool = True


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


# Parquet, a list a text.


def write_usual(directory: Path, bags: Bags) -> None:
    """Write lists as the store writes tables of which it is told nothing."""
    write_table(directory / "lists.parquet", pa.table({"rows": list_array(bags)}))


def read_usual(directory: Path) -> Bags:
    """Read what `write_usual` wrote."""
    return from_lists(read_table(directory / "lists.parquet")["rows"])


def write_lists(directory: Path, bags: Bags, *, settings: Settings, gaps: bool = False) -> None:
    """Write a Parquet file with one column of lists."""
    rows = to_gaps(in_row_order(bags)) if gaps else bags.rows
    table = pa.table({"rows": list_array(Bags(rows, bags.offsets))})
    write_parquet(directory / "lists.parquet", table, GROUP_TEXTS, settings)


def read_lists(directory: Path, *, gaps: bool = False) -> Bags:
    """Read what `write_lists` wrote."""
    bags = from_lists(read_parquet(directory / "lists.parquet")["rows"])
    return from_gaps(bags) if gaps else bags


def list_array(bags: Bags) -> Any:  # noqa: ANN401
    """Return bags as an Arrow array, not copied."""
    return pa.LargeListArray.from_arrays(pa.array(bags.offsets), pa.array(bags.rows))


def from_lists(column: Any) -> Bags:  # noqa: ANN401
    """Return the bags of an Arrow column; copied where it has several chunks."""
    parts = []
    for chunk in column.chunks:
        offsets = chunk.offsets.to_numpy().astype(np.int64)
        rows = chunk.values.to_numpy()[offsets[0] : offsets[-1]]
        parts.append(Bags(rows, offsets - offsets[0]))
    return parts[0] if len(parts) == 1 else Bags.concat(parts)


def write_parquet(path: Path, table: Any, group: int, settings: Settings) -> None:  # noqa: ANN401
    """Write a table as `storage.write_table` does, but for what settings say."""
    usual = {"use_dictionary": False, "write_page_checksum": True, "row_group_size": group}
    pq.write_table(table, path, **(usual | settings))


def read_parquet(path: Path) -> Any:  # noqa: ANN401
    """Read a table as `storage.read_table` does, in one thread."""
    with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
        return file.read(use_threads=False)


# Parquet, flat: a file of rows, a file of their numbers.


def write_flat(directory: Path, bags: Bags, *, settings: Settings, gaps: bool = False) -> None:
    """Write a Parquet file of all rows and one of their number in each text."""
    rows = to_gaps(in_row_order(bags)) if gaps else bags.rows
    table = pa.table({"rows": pa.array(rows)})
    write_parquet(directory / "rows.parquet", table, GROUP_NGRAMS, settings)
    write_counts(directory, bags)


def read_flat(directory: Path, *, gaps: bool = False) -> Bags:
    """Read what `write_flat` wrote."""
    rows = read_parquet(directory / "rows.parquet")["rows"].to_numpy()
    bags = Bags(rows, read_counts(directory))
    return from_gaps(bags) if gaps else bags


def write_counts(directory: Path, bags: Bags) -> None:
    """Write how many n-grams each text has."""
    counts = pa.table({"count": pa.array(np.diff(bags.offsets).astype(np.int32))})
    packed = {"compression": "none", "column_encoding": {"count": "DELTA_BINARY_PACKED"}}
    write_parquet(directory / "counts.parquet", counts, GROUP_TEXTS, packed)


def read_counts(directory: Path) -> NDArray[np.int64]:
    """Return the offsets of the bags."""
    return to_offsets(read_parquet(directory / "counts.parquet")["count"].to_numpy())


def to_offsets(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each of parts laid end to end begins, and where the last ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


# Parquet, a string of bytes a text.


def write_binary(directory: Path, bags: Bags, *, settings: Settings, gaps: bool = False) -> None:
    """Write a Parquet file with each bag as bytes: a varint a row, or a gap between sorted rows."""
    data, starts = to_varints(bags, gaps=gaps)
    column = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bags), [None, pa.py_buffer(starts), pa.py_buffer(data)]
    )
    path = directory / "bytes.parquet"
    encoding: Settings = {"column_encoding": {"rows": "DELTA_LENGTH_BYTE_ARRAY"}}
    write_parquet(path, pa.table({"rows": column}), GROUP_TEXTS, encoding | settings)


def read_binary(directory: Path, *, gaps: bool = False) -> Bags:
    """Read what `write_binary` wrote."""
    parts = []
    for chunk in read_parquet(directory / "bytes.parquet")["rows"].chunks:
        _, offset_buffer, data_buffer = chunk.buffers()
        wide = pa.types.is_large_binary(chunk.type)
        offsets: NDArray[np.int64] = np.frombuffer(
            offset_buffer, np.int64 if wide else np.int32
        ).astype(np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        parts.append(from_varints(np.frombuffer(data_buffer, np.uint8), offsets, gaps=gaps))
    return Bags.concat(parts)


# Arrow IPC.


def write_ipc(directory: Path, bags: Bags, *, compression: str | None) -> None:
    """Write an Arrow file of one batch."""
    table = pa.table({"rows": list_array(bags)})
    options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
    with pa.ipc.new_file(directory / "bags.arrow", table.schema, options=options) as writer:
        writer.write_table(table)


def read_ipc(directory: Path) -> Bags:
    """Read an Arrow file; its pages are copied, so that no time is put off."""
    bags = map_ipc(directory)
    return Bags(bags.rows.copy(), bags.offsets)


def map_ipc(directory: Path) -> Bags:
    """Open an Arrow file; the rows of one without compression stay where they are."""
    with pa.memory_map(str(directory / "bags.arrow")) as file:
        options = pa.ipc.IpcReadOptions(use_threads=False)
        return from_lists(pa.ipc.open_file(file, options=options).read_all()["rows"])


# Raw arrays.


def write_raw(directory: Path, bags: Bags) -> None:
    """Write rows and offsets as .npy."""
    np.save(directory / "rows.npy", bags.rows)
    np.save(directory / "offsets.npy", bags.offsets)


def read_raw(directory: Path) -> Bags:
    """Read rows and offsets."""
    return Bags(np.load(directory / "rows.npy"), np.load(directory / "offsets.npy"))


def open_raw(directory: Path) -> Fetch:
    """Return what copies bags out of the mapped file."""
    rows = np.load(directory / "rows.npy", mmap_mode="r")
    return Bags(rows, np.load(directory / "offsets.npy")).take


# Our own: each row in the bits that the largest takes, mapped.


def write_bits(directory: Path, bags: Bags) -> None:
    """Write rows end to end, all in the same number of bits."""
    width = max(1, int(bags.rows.max(initial=0)).bit_length())
    # One word more than there is to read, so that a read may run over.
    words = np.zeros(len(bags.rows) * width // 64 + 2, np.uint64)
    pack_bits(bags.rows, width, words)
    words[-1] = width
    np.save(directory / "bits.npy", words)
    write_counts(directory, bags)


def read_bits(directory: Path) -> Bags:
    """Read what `write_bits` wrote."""
    words, offsets = np.load(directory / "bits.npy"), read_counts(directory)
    return unpack(words, offsets, offsets[:-1])


def open_bits(directory: Path) -> Fetch:
    """Return what unpacks bags out of the mapped file."""
    words, offsets = np.load(directory / "bits.npy", mmap_mode="r"), read_counts(directory)

    def fetch(indices: NDArray[np.int64]) -> Bags:
        starts = offsets[indices]
        return unpack(words, to_offsets(offsets[indices + 1] - starts), starts)

    return fetch


def unpack(
    words: NDArray[np.uint64], offsets: NDArray[np.int64], starts: NDArray[np.int64]
) -> Bags:
    """Return bags by their first n-gram in the packed file."""
    rows = np.empty(offsets[-1], np.int32)
    unpack_bits(np.asarray(words), int(words[-1]), np.ascontiguousarray(starts), offsets, rows)
    return Bags(rows, offsets)


@kernel
def pack_bits(rows: NDArray[np.int32], width: int, words: NDArray[np.uint64]) -> None:
    """Put each row at its bit."""
    for i in range(len(rows)):
        word, shift = np.uint64(i * width) >> np.uint64(6), np.uint64(i * width) & np.uint64(63)
        row = np.uint64(rows[i])
        words[word] |= row << shift
        if shift + np.uint64(width) > np.uint64(64):
            words[word + np.uint64(1)] |= row >> (np.uint64(64) - shift)


@kernel
def unpack_bits(
    words: NDArray[np.uint64],
    width: int,
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int32],
) -> None:
    """Take the rows of each bag from their bits."""
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    for bag in range(len(starts)):
        bit = np.uint64(starts[bag] * width)
        for i in range(offsets[bag], offsets[bag + 1]):
            word, shift = bit >> np.uint64(6), bit & np.uint64(63)
            low = words[word] >> shift
            # In two steps, as a shift by 64 would be none.
            high = words[word + np.uint64(1)] << (np.uint64(63) - shift) << np.uint64(1)
            rows[i] = np.int32((low | high) & mask)
            bit += np.uint64(width)


# Our own: a varint (LEB128) a row, or a gap between the sorted rows of a bag.


def write_varints(directory: Path, bags: Bags, *, gaps: bool = False) -> None:
    """Write the bytes of all bags end to end."""
    data, starts = to_varints(bags, gaps=gaps)
    np.save(directory / "bytes.npy", data)
    lengths = Bags(np.zeros(starts[-1], np.int32), starts)
    write_counts(directory, lengths)


def read_varints(directory: Path, *, gaps: bool = False) -> Bags:
    """Read what `write_varints` wrote."""
    return from_varints(np.load(directory / "bytes.npy"), read_counts(directory), gaps=gaps)


def open_varints(directory: Path, *, gaps: bool = False) -> Fetch:
    """Return what decodes bags out of the mapped file."""
    data = np.load(directory / "bytes.npy", mmap_mode="r")
    texts = TextBuffer(data, read_counts(directory))

    def fetch(indices: NDArray[np.int64]) -> Bags:
        part = texts.take(indices)
        return from_varints(part.data, part.offsets, gaps=gaps)

    return fetch


def to_varints(bags: Bags, *, gaps: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bytes of all bags and where each begins."""
    values = to_gaps(in_row_order(bags)) if gaps else bags.rows
    data, starts = np.empty(5 * len(values), np.uint8), np.zeros(len(bags) + 1, np.int64)
    encode(values, bags.offsets, data, starts)
    return data[: starts[-1]].copy(), starts


def from_varints(data: NDArray[np.uint8], starts: NDArray[np.int64], *, gaps: bool) -> Bags:
    """Return the bags of bytes."""
    data = data.view()
    data.flags.writeable = False
    rows, offsets = np.empty(starts[-1] - starts[0], np.int32), np.zeros(len(starts), np.int64)
    count = decode(np.asarray(data), starts, gaps, rows, offsets)
    return Bags(rows[:count], offsets)


@kernel
def encode(
    values: NDArray[np.int32],
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
) -> None:
    """Write seven bits a byte, the top bit set in all but the last byte of a value."""
    at = 0
    for bag in range(len(offsets) - 1):
        for i in range(offsets[bag], offsets[bag + 1]):
            value = values[i]
            while value > 127:
                data[at] = (value & 127) | 128
                value >>= 7
                at += 1
            data[at] = value
            at += 1
        starts[bag + 1] = at


@kernel
def decode(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    gaps: bool,
    rows: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> int:
    """Read what `encode` wrote, and sum gaps up."""
    count = 0
    for bag in range(len(starts) - 1):
        before, value, shift = 0, 0, 0
        for at in range(starts[bag], starts[bag + 1]):
            value |= (data[at] & 127) << shift
            shift += 7
            if data[at] < 128:
                if gaps:
                    before += value
                    rows[count] = before
                else:
                    rows[count] = value
                count += 1
                value, shift = 0, 0
        offsets[bag + 1] = count
    return count


def in_row_order(bags: Bags) -> Bags:
    """Return bags with their n-grams by row, the position lost."""
    rows = bags.rows.copy()
    sort_bags(rows, bags.offsets)
    return Bags(rows, bags.offsets)


def to_gaps(bags: Bags) -> NDArray[np.int32]:
    """Return the first row of each sorted bag, then how much larger each is than the last."""
    gaps = np.diff(bags.rows, prepend=np.int32(0))
    starts = bags.offsets[:-1][np.diff(bags.offsets) > 0]
    gaps[starts] = bags.rows[starts]
    return gaps


def from_gaps(gaps: Bags) -> Bags:
    """Undo `to_gaps`."""
    rows = np.empty(len(gaps.rows), np.int32)
    sum_gaps(gaps.rows, gaps.offsets, rows)
    return Bags(rows, gaps.offsets)


@kernel
def sort_bags(rows: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
    """Sort each bag where it lies."""
    for bag in range(len(offsets) - 1):
        rows[offsets[bag] : offsets[bag + 1]].sort()


@kernel
def sum_gaps(gaps: NDArray[np.int32], offsets: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
    """Sum the gaps of each bag up."""
    for bag in range(len(offsets) - 1):
        row = np.int32(0)
        for i in range(offsets[bag], offsets[bag + 1]):
            row += gaps[i]
            rows[i] = row


# No file: the texts are in the store anyhow.


def looked_up_again(texts: TextBuffer, vocabulary: Vocabulary) -> Format:
    """Return the format that keeps the texts only; those in memory serve a batch."""

    def write(directory: Path, bags: Bags) -> None:
        del bags
        column = pa.LargeStringArray.from_buffers(
            len(texts), pa.py_buffer(texts.offsets), pa.py_buffer(texts.data)
        )
        path, table = directory / "texts.parquet", pa.table({"text": column})
        write_parquet(path, table, GROUP_TEXTS, _compression("zstd 3"))

    def read(directory: Path) -> Bags:
        column = read_parquet(directory / "texts.parquet")["text"]
        return vocabulary.bags(TextBuffer.from_arrow(column))

    def fetch(indices: NDArray[np.int64]) -> Bags:
        return vocabulary.bags(texts.take(indices))

    return Format("texts, looked up again", write, read, lambda _: fetch)


def _formats() -> Iterator[Format]:
    yield Format("storage.write_table, list", write_usual, read_usual)
    for codec, encoding in (
        ("zstd 3", "dictionary"),
        ("none", "plain"),
        ("lz4", "plain"),
        ("zstd 3", "plain"),
        ("none", "delta"),
        ("lz4", "split"),
        ("zstd 1", "split"),
        ("zstd 3", "split"),
    ):
        yield _list(encoding, codec)
        yield _flat(encoding, codec)
    yield _sorted(_list("split", "zstd 3"))
    yield _sorted(_flat("split", "zstd 3"))
    binary = partial(write_binary, settings=_compression("zstd 3"))
    yield Format("Parquet binary, varint, zstd 3", binary, read_binary)
    yield _sorted(Format("Parquet binary, varint, zstd 3", binary, read_binary))
    yield Format(
        "Arrow IPC, none",
        partial(write_ipc, compression=None),
        read_ipc,
        lambda directory: map_ipc(directory).take,
    )
    for codec in ("lz4", "zstd"):
        yield Format(f"Arrow IPC, {codec}", partial(write_ipc, compression=codec), map_ipc)
    yield Format("raw int32, mapped", write_raw, read_raw, open_raw)
    yield Format("own bit packing, mapped", write_bits, read_bits, open_bits)
    varints = Format("own varint, mapped", write_varints, read_varints, open_varints)
    yield varints
    yield _sorted(varints)


def _list(encoding: str, codec: str) -> Format:
    settings = _encoding("rows.list.element", encoding) | _compression(codec)
    write = partial(write_lists, settings=settings)
    return Format(f"Parquet list, {encoding}, {codec}", write, read_lists)


def _flat(encoding: str, codec: str) -> Format:
    settings = _encoding("rows", encoding) | _compression(codec)
    write = partial(write_flat, settings=settings)
    return Format(f"Parquet flat, {encoding}, {codec}", write, read_flat)


def _sorted(form: Format) -> Format:
    return Format(
        f"{form.name}, sorted gaps",
        partial(form.write, gaps=True),
        partial(form.read, gaps=True),
        partial(form.open, gaps=True) if form.open else None,
        ordered=False,
    )


def _encoding(column: str, name: str) -> Settings:
    if name == "dictionary":
        return {"use_dictionary": True}
    names = {"plain": "PLAIN", "delta": "DELTA_BINARY_PACKED", "split": "BYTE_STREAM_SPLIT"}
    return {"column_encoding": {column: names[name]}}


def _compression(codec: str) -> Settings:
    name, _, level = codec.partition(" ")
    return {"compression": name} | ({"compression_level": int(level)} if level else {})


FORMATS = tuple(_formats())


if __name__ == "__main__":
    sys.exit(main())
