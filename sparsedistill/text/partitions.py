"""N-grams sorted roughly: the hash of every occurrence goes to the partition of its order and bits.

A table of all n-grams does not fit the caches, and a miss at each occurrence is what would take
the time. So occurrences are first written out by partition (one number of tokens, one value of the
hash's first bits), which memory does at full speed; each is then sorted where it fits the caches.
Since a partition has one order, an entry is the bare hash.

Partitions grow in chunks of one array. Each thread takes chunks from a stretch of its own, and the
partition of all threads together is counted, so the result does not depend on who wrote what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsedistill.jit import kernel
from sparsedistill.text.kernels import Rules, combine, make_scratch, tokenise
from sparsedistill.text.ngram_spec import MAX_ORDER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.ngram_spec import NgramSpec

# Entries in a chunk: a page of memory, so that every partition costs at least that.
CHUNK_BITS = 9
CHUNK = 1 << CHUNK_BITS
# First tokens between two looks at whether there is room.
_STRIDE = 64
# Occurrences wanted in a partition: they are sorted in the second-level cache.
_PARTITION = 1 << 16
_MOST_BITS = 12


class Partitions(NamedTuple):
    """Occurrences by partition; partition `p` is of order `min_n + (p >> bits)`.

    Attributes:
        entries: uint64[chunks * CHUNK], hashes.
        following: int32[chunks], the chunk that goes on where one is full.
        first: int32[threads, partitions], the chunk each begins with.
        at: int64[threads, partitions], where its next entry goes.
        full: int32[threads, partitions], its full chunks.
        free: int64[threads, 2], the next free chunk, and the end of the thread's stretch.
        bits: First bits of the hash that number a partition.
    """

    entries: NDArray[np.uint64]
    following: NDArray[np.int32]
    first: NDArray[np.int32]
    at: NDArray[np.int64]
    full: NDArray[np.int32]
    free: NDArray[np.int64]
    bits: int

    def occurrences(self) -> NDArray[np.int64]:
        """How many entries each partition has, int64[partitions]."""
        inside = self.at - (self.at >> CHUNK_BITS << CHUNK_BITS)
        # A partition whose chunk has just become full has begun the next one.
        found: NDArray[np.int64] = (self.full.astype(np.int64) * CHUNK + inside).sum(axis=0)
        return found

    def clear(self) -> None:
        """Forget all entries."""
        threads, partitions = self.first.shape
        stretch = len(self.following) // threads
        starts = np.arange(threads)[:, None] * stretch + np.arange(partitions)
        self.first[:] = starts
        self.at[:] = starts * CHUNK
        self.full[:] = 0
        self.free[:, 0] = np.arange(threads) * stretch + partitions


def make_partitions(spec: NgramSpec, *, occurrences: int, threads: int, largest: int) -> Partitions:
    """Empty partitions with room for so many occurrences; memory is taken as it is used.

    Args:
        spec: The n-grams that will come.
        occurrences: How many, at most, before they are counted.
        threads: That will write at once.
        largest: Occurrences wanted in a partition, at most.
    """
    lengths = spec.max_n - spec.min_n + 1
    wanted = occurrences // lengths // min(largest, _PARTITION)
    bits = min(_MOST_BITS, max(0, wanted.bit_length() - 1))
    # Each thread begins a chunk in each partition: no more than a twentieth of the room for that.
    while bits > 0 and 20 * threads * (lengths << bits) * CHUNK > occurrences:
        bits -= 1
    partitions = lengths << bits
    # A chunk begun for each partition, and what one stride may need.
    spare = partitions + _STRIDE * lengths
    stretch = occurrences // threads // CHUNK + 1 + spare
    chunks = stretch * threads
    result = Partitions(
        entries=np.empty(chunks * CHUNK, np.uint64),
        following=np.empty(chunks, np.int32),
        first=np.empty((threads, partitions), np.int32),
        at=np.empty((threads, partitions), np.int64),
        full=np.empty((threads, partitions), np.int32),
        free=np.stack([np.zeros(threads, np.int64), np.arange(1, threads + 1) * stretch], axis=1),
        bits=bits,
    )
    result.clear()
    return result


def stride_bytes(threads: int) -> int:
    """Room that must be free for threads to go on, in bytes."""
    return threads * _STRIDE * MAX_ORDER * CHUNK * 8


@kernel
def scatter_rows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rules: Rules,
    rows: tuple[int, int, int],
    sizes: tuple[int, int],
    into: Partitions,
    thread: int,
) -> tuple[int, int]:
    """Write the n-grams of some rows to their partitions, while there is room.

    Args:
        data: Text bytes.
        offsets: Of the rows.
        rules: The tokeniser.
        rows: The row to begin with, the first token in it, and the row to stop before.
        sizes: Shortest and longest n-gram.
        into: The partitions.
        thread: Whose stretch of them to use.

    Returns:
        The row and token to go on with; the row to stop before when all are done.
    """
    row, token, stop = rows
    free, limit = into.free[thread, 0], into.free[thread, 1]
    # Every entry could be the last of a chunk.
    needed = _STRIDE * (sizes[1] - sizes[0] + 1)
    scratch = make_scratch(offsets, row, stop)
    while row < stop:
        tokens = tokenise(data, offsets[row], offsets[row + 1], rules, scratch)
        while token < tokens and limit - free >= needed:
            until = min(tokens, token + _STRIDE)
            for begin in range(token, until):
                ngram = scratch.hashes[begin]
                if sizes[0] == 1:
                    free = enter(ngram, 0, into, thread, free)
                for order in range(2, min(sizes[1], tokens - begin) + 1):
                    ngram = combine(ngram, scratch.hashes[begin + order - 1])
                    if order >= sizes[0]:
                        free = enter(ngram, order - sizes[0], into, thread, free)
            token = until
        if token < tokens:
            break
        row += 1
        token = 0
    into.free[thread, 0] = free
    return row, token


@kernel
def enter(ngram: np.uint64, length: int, into: Partitions, thread: int, free: int) -> int:
    """Write an n-gram to its partition; returns the next free chunk."""
    # Two steps: with no bits, one shift by 64 would not be defined.
    bits = np.int64((ngram >> np.uint64(1)) >> np.uint64(63 - into.bits))
    partition = (length << into.bits) + bits
    where = into.at[thread, partition]
    into.entries[where] = ngram
    where += 1
    if where & (CHUNK - 1) == 0:
        into.following[(where >> CHUNK_BITS) - 1] = free
        where = free << CHUNK_BITS
        free += 1
        into.full[thread, partition] += 1
    into.at[thread, partition] = where
    return free


@kernel
def gather_partition(
    occurrences: Partitions, partition: int, leave: int, out: NDArray[np.uint64]
) -> None:
    """Copy entries of a partition end to end: after `leave` of them, as many as `out` has room for.

    Args:
        occurrences: The partitions.
        partition: Which.
        leave: How many to leave out at the beginning.
        out: To be filled to its end.
    """
    n = 0
    skip: int | np.int64 = leave
    for thread in range(len(occurrences.first)):
        chunk = np.int64(occurrences.first[thread, partition])
        end = occurrences.at[thread, partition]
        while n < len(out):
            begin = chunk << CHUNK_BITS
            last = begin <= end < begin + CHUNK
            stop = end if last else begin + CHUNK
            passed = min(skip, stop - begin)
            skip -= passed
            for i in range(begin + passed, min(stop, begin + passed + len(out) - n)):
                out[n] = occurrences.entries[i]
                n += 1
            if last:
                break
            chunk = np.int64(occurrences.following[chunk])


@kernel
def count_runs(
    hashes: NDArray[np.uint64], distinct: NDArray[np.uint64], counts: NDArray[np.int64]
) -> int:
    """Count equal neighbours in sorted hashes; returns how many different ones there are."""
    n = -1
    previous = np.uint64(0)
    for i in range(len(hashes)):
        ngram = hashes[i]
        # No branch: whether an n-gram comes again cannot be foreseen.
        fresh = n < 0 or ngram != previous
        n += fresh
        counts[n] = 1 if fresh else counts[n] + 1
        distinct[n] = ngram
        previous = ngram
    return n + 1
