"""Counting the n-grams of any number of texts, exactly, in a stated amount of memory.

Texts are added as they come. Their n-grams go to partitions (`partitions.py`); when those are full,
each is sorted and counted, and the counts go to disk as a run; in the end the runs are merged. What
fits the memory is never written. Nothing is dropped, so counts are exact, and neither the memory
nor the number of threads nor how the texts were cut changes any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill import merging
from sparsedistill.counted import CountedHashes
from sparsedistill.errors import ConfigError
from sparsedistill.memory import format_size, parse_size, usable
from sparsedistill.parallel import map_ahead
from sparsedistill.spill import Run
from sparsedistill.text import kernels, partitions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sparsedistill.text.buffers import TextBuffer
    from sparsedistill.text.ngram_spec import NgramSpec

# Occurrences sorted at a time, as they come and as they are counted.
_PIECE, _LEAST_PIECE = 1 << 18, 1 << 13
_PIECE_BYTES = 24
# An occurrence in its partition, and its share of chunks that are not full.
_OCCURRENCE_BYTES = 8.5
_LEAST_OCCURRENCES = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class NgramCounts:
    """All n-grams of some texts, by order and then by hash; all arrays have one length.

    Attributes:
        hash: uint64.
        count: int64, occurrences.
        order: uint8, tokens in the n-gram.
    """

    hash: NDArray[np.uint64]
    count: NDArray[np.int64]
    order: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.hash)


def count_ngrams(texts: TextBuffer, spec: NgramSpec, *, threads: int = 1) -> NgramCounts:
    """Count the n-grams of texts that are in memory, in memory.

    Takes 8 bytes per occurrence and 17 per different n-gram. See `NgramCounter` for more texts.
    """
    most = most_ngrams(texts.nbytes, len(texts), spec)
    counter = NgramCounter(spec, memory=None, occurrences=most, threads=threads)
    counter.add(texts)
    parts = list(counter.parts())
    empty = CountedHashes(0, np.zeros(0, np.uint64), np.zeros(0, np.int64))
    return NgramCounts(
        hash=np.concatenate([part.hash for part in (empty, *parts)]),
        count=np.concatenate([part.count for part in (empty, *parts)]),
        order=np.repeat(
            np.array([part.order for part in (empty, *parts)], np.uint8),
            [len(part) for part in (empty, *parts)],
        ),
    )


def most_ngrams(size: int, rows: int, spec: NgramSpec) -> int:
    """How many n-grams texts of so many bytes can have at most."""
    # A token takes its shortest length and, but for single characters, something that ends it.
    shortest = {"word": 3, "whitespace": 2, "character": 1}[spec.tokenizer]
    return (size + rows) // shortest * (spec.max_n - spec.min_n + 1)


def least_memory(threads: int) -> int:
    """Bytes that a counter cannot do without, nor the merge of what it spills."""
    pieces = 4 * _LEAST_PIECE * _pieces_bytes(threads)
    counting = max(pieces, int(2 * _OCCURRENCE_BYTES * _LEAST_OCCURRENCES))
    counting += partitions.stride_bytes(threads)
    return max(counting * 5 // 4 + 1, merging.least_memory(threads))


def _pieces_bytes(threads: int) -> int:
    # A piece is sorted and counted; as many as there are threads, and two that wait.
    return _PIECE_BYTES * (threads + 2)


class NgramCounter:
    """Counts the n-grams of texts that are added to it."""

    def __init__(
        self,
        spec: NgramSpec,
        *,
        memory: str | int | None = "2GB",
        occurrences: int | None = None,
        spill: Path | None = None,
        threads: int = 1,
    ) -> None:
        """Start at nothing.

        Args:
            spec: Which n-grams.
            memory: For all arrays together, beside the texts that are being added; None for as
                much as it takes.
            occurrences: How many n-grams will come at most, where that is known: no more memory is
                reserved than they need. Must be known where `memory` is None.
            spill: Directory for what does not fit; whoever gives it removes it. Without one, all
                must fit.
            threads: At most this many.

        Raises:
            ConfigError: The memory is less than a counter can work in (names what is enough), or
                no thread.
        """
        if threads < 1:
            raise ConfigError(f"threads must be 1 or more, not {threads}")
        self._spec = spec
        self._memory = None if memory is None else parse_size(memory)
        self._threads = threads
        self._spill = spill
        self._runs: list[Run] = []
        self._piece = _PIECE
        rooms = [occurrences, None if self._memory is None else self._affordable(self._memory)]
        room = min((room for room in rooms if room is not None), default=None)
        if room is None:
            raise ConfigError("give the memory, or how many occurrences will come")
        if self._memory is None:  # then nothing can be spilled, if one thread gets most of them
            room *= threads
        self._partitions = partitions.make_partitions(
            spec, occurrences=room, threads=threads, largest=self._piece // 2
        )

    def add(self, texts: TextBuffer) -> None:
        """Count the n-grams of some texts.

        Raises:
            OSError: The disk is full; the message names the directory.
            ConfigError: They do not fit the memory, and there is no directory to spill to.
        """
        spans = [(start, 0, stop) for start, stop in _shares(texts, self._threads)]
        while spans:
            reached = list(
                map_ahead(
                    lambda job: (*self._scatter(texts, *job), job[1][2]),
                    list(enumerate(spans)),
                    threads=self._threads,
                )
            )
            spans = [span for span in reached if span[0] < span[2]]
            if spans:
                self._write_run()

    def parts(self) -> Iterator[CountedHashes]:
        """The counts of all that was added, by order and then by ascending hash; ends counting."""
        if not self._runs or self._memory is None:
            yield from self._counted()
            return
        self._write_run()
        del self._partitions
        yield from merging.merge_counted(
            self._runs, memory=self._memory, spill=self._spill, threads=self._threads
        )

    def _affordable(self, memory: int) -> int:
        """Occurrences that fit the memory beside all else that is held while they are counted."""
        least = least_memory(self._threads)
        if memory < least:
            raise ConfigError(
                f"{format_size(memory)} of memory are too little to count n-grams in "
                f"{self._threads} threads; {format_size(least)} are the least"
            )
        pieces = _pieces_bytes(self._threads)
        memory = usable(memory) - partitions.stride_bytes(self._threads)
        self._piece = min(_PIECE, memory // 4 // pieces)
        return int((memory - pieces * self._piece) / _OCCURRENCE_BYTES)

    def _scatter(
        self, texts: TextBuffer, thread: int, span: tuple[int, int, int]
    ) -> tuple[int, int]:
        return partitions.scatter_rows(
            texts.data,
            texts.offsets,
            kernels.rules(self._spec.tokenizer),
            span,
            (self._spec.min_n, self._spec.max_n),
            self._partitions,
            thread,
        )

    def _counted(self) -> Iterator[CountedHashes]:
        """The counts of what the partitions hold."""
        occurrences, bits = self._partitions.occurrences(), self._partitions.bits

        def count(partition: int) -> CountedHashes:
            entries = int(occurrences[partition])
            order = self._spec.min_n + (partition >> bits)
            # More than a piece is one n-gram many times: a bit of it at a time.
            pieces = [
                self._count_piece(partition, begin, min(begin + self._piece, entries))
                for begin in range(0, entries, self._piece)
            ]
            added = pieces[0] if len(pieces) == 1 else merging.add_up(pieces)
            return CountedHashes(order, *added)

        return map_ahead(count, np.flatnonzero(occurrences).tolist(), threads=self._threads)

    def _count_piece(
        self, partition: int, begin: int, end: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        hashes = np.empty(end - begin, np.uint64)
        partitions.gather_partition(self._partitions, partition, begin, hashes)
        hashes.sort()
        distinct, counts = np.empty_like(hashes), np.empty(len(hashes), np.int64)
        n = partitions.count_runs(hashes, distinct, counts)
        return distinct[:n], counts[:n]

    def _write_run(self) -> None:
        if self._spill is None or self._memory is None:
            raise ConfigError(
                "the n-grams are more than was said, or than fits the memory; give more memory, "
                "or a directory to spill to"
            )
        self._runs.append(Run.write(self._spill, self._counted()))
        self._partitions.clear()


def _shares(texts: TextBuffer, threads: int) -> list[tuple[int, int]]:
    """Rows in as many stretches as threads, of about as many bytes each; none is empty."""
    begin, size = texts.offsets[0], texts.nbytes
    wanted = begin + np.arange(threads + 1) * size // threads
    cuts = np.searchsorted(texts.offsets[:-1], wanted)
    cuts[0], cuts[-1] = 0, len(texts)
    return [(a, b) for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True) if a < b]
