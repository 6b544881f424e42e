"""The ways to store bags that `feature_storage.py` measures: written, read, fetched from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparsedistill.bags import Bags
from sparsedistill.jit import kernel
from sparsedistill.tensor_files import read_tensors, write_tensors
from sparsedistill.text.buffers import TextBuffer
from storage import read_table, write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sparsedistill.vocabulary import Vocabulary

    Fetch = Callable[[NDArray[np.int64]], Bags]
    Settings = dict[str, Any]

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


# Plain arrays, as the stage `features` writes them.


def write_plain(directory: Path, bags: Bags) -> None:
    """Write rows and offsets as safetensors."""
    arrays = {"rows": bags.rows, "offsets": bags.offsets}
    write_tensors(directory / "bags.safetensors", arrays)


def read_plain(directory: Path) -> Bags:
    """Read rows and offsets; their pages are copied, so that no time is put off."""
    bags = map_plain(directory)
    return Bags(bags.rows.copy(), bags.offsets.copy())


def map_plain(directory: Path) -> Bags:
    """Open a file of plain arrays; they stay where they are."""
    layout = {"rows": (np.int32, (None,)), "offsets": (np.int64, (None,))}
    return Bags(**read_tensors(directory / "bags.safetensors", layout))


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


# Bags sorted: gaps between neighbouring rows are small.


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
    yield Format(
        "Arrow IPC, none",
        partial(write_ipc, compression=None),
        read_ipc,
        lambda directory: map_ipc(directory).take,
    )
    for codec in ("lz4", "zstd"):
        yield Format(f"Arrow IPC, {codec}", partial(write_ipc, compression=codec), map_ipc)
    yield Format(
        "safetensors, mapped", write_plain, read_plain, lambda directory: map_plain(directory).take
    )
    yield Format("own bit packing, mapped", write_bits, read_bits, open_bits)


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
