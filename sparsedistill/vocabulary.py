"""The vocabulary: which n-grams have a row, in which order, and how often they occur.

Rows are ordered by total count, descending; then by number of tokens; then by UTF-8 bytes. So row
0 is the most frequent n-gram, a smaller vocabulary is the beginning of a larger one, and the order
is the same on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.files import (
    check_format,
    checked_field,
    read_json,
    read_strings,
    write_json,
    write_strings,
)
from sparsedistill.ngram_index import NgramIndex
from sparsedistill.tensor_files import read_tensors, write_tensors
from sparsedistill.text import oracle
from sparsedistill.text.buffers import TextBuffer, frozen
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.strings import hash_strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sparsedistill.bags import Bags

FORMAT = 1
CONFIG_FILE = "vocabulary.json"
ARRAYS_FILE = "vocabulary.safetensors"
STRINGS_FILE = "ngrams.txt.zst"
MAX_NGRAMS = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """N-grams by row.

    Attributes:
        spec: Which n-grams of a text are looked up.
        ngrams: Their strings, tokens joined by one space, by row.
        hashes: uint64[rows]; a wrong one is an error.
        counts: int64[rows], total counts, corpus and train together.
        train_counts: int64[rows], counts in train alone.
        orders: uint8[rows], tokens in each.
        index: For looking them up.
    """

    spec: NgramSpec
    ngrams: TextBuffer
    hashes: NDArray[np.uint64]
    counts: NDArray[np.int64]
    train_counts: NDArray[np.int64]
    orders: NDArray[np.uint8] = field(init=False, repr=False)
    index: NgramIndex = field(init=False, repr=False)

    def __post_init__(self) -> None:
        columns = {"hashes": np.uint64, "counts": np.int64, "train_counts": np.int64}
        for name, dtype in columns.items():
            object.__setattr__(self, name, frozen(getattr(self, name), dtype))
            if getattr(self, name).shape != (len(self.ngrams),):
                raise DataError(
                    f"{len(self.ngrams)} n-grams, but {name} has the shape "
                    f"{getattr(self, name).shape}"
                )
        hashes, orders, prefixes = hash_strings(self.ngrams)
        wrong = np.flatnonzero(hashes != self.hashes)
        if len(wrong):
            raise DataError(f"row {wrong[0]}: the hash is not that of {self.ngrams[wrong[0]]!r}")
        index = NgramIndex.build(self.hashes, np.zeros(0, np.uint64))
        bridges = np.unique(prefixes[index.find(prefixes) < 0])
        if len(bridges):
            index = NgramIndex.build(self.hashes, bridges)
        object.__setattr__(self, "orders", frozen(orders, np.uint8))
        object.__setattr__(self, "index", index)

    @classmethod
    def from_ngrams(
        cls, spec: NgramSpec, ngrams: Sequence[str], counts: Sequence[int] | None = None
    ) -> Vocabulary:
        """A vocabulary of these n-grams in this order; without counts, all 0."""
        return cls.from_strings(spec, TextBuffer.from_strings(ngrams), counts)

    @classmethod
    def from_strings(
        cls, spec: NgramSpec, ngrams: TextBuffer, counts: Sequence[int] | None = None
    ) -> Vocabulary:
        """As `from_ngrams`, of strings that are in a buffer already."""
        zeros = np.zeros(len(ngrams), np.int64)
        known = zeros if counts is None else np.asarray(counts, np.int64)
        return cls(spec, ngrams, hash_strings(ngrams)[0], known, zeros)

    def __len__(self) -> int:
        return len(self.ngrams)

    def __getitem__(self, row: int) -> str:
        return self.ngrams[row]

    def find(self, ngram: str) -> int | None:
        """The row of an n-gram (as it stands here: lowered, one space between tokens), or None."""
        wanted = np.array([oracle.ngram_hash(ngram)], np.uint64)
        row = int(self.index.find(wanted)[0])
        return row if row >= 0 else None

    def bags(self, texts: TextBuffer, *, max_ngrams: int = MAX_NGRAMS, threads: int = 1) -> Bags:
        """The rows of the known n-grams of each text; see `Bags` for their order.

        Args:
            texts: Rows of text.
            max_ngrams: The first so many known n-grams are kept.
            threads: At most this many; the result does not depend on it.
        """
        return self.index.bags(texts, self.spec, max_ngrams=max_ngrams, threads=threads)

    def take(self, rows: NDArray[np.integer[Any]]) -> Vocabulary:
        """A vocabulary of some rows, in the order asked for; row `i` of it is `rows[i]` of this."""
        return Vocabulary(
            self.spec,
            self.ngrams.take(rows),
            self.hashes[rows],
            self.counts[rows],
            self.train_counts[rows],
        )

    def save(self, directory: str | Path) -> None:
        """Write it to a directory, which is made; the same vocabulary gives the same bytes."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_strings(directory / STRINGS_FILE, self.ngrams)
        arrays = {
            "hashes": self.hashes,
            "counts": self.counts,
            "train_counts": self.train_counts,
        }
        write_tensors(directory / ARRAYS_FILE, arrays)
        config = {
            "format": FORMAT,
            "ngrams": self.spec.to_json(),
            "rows": len(self),
            "hash": oracle.HASH_NAME,
        }
        write_json(directory / CONFIG_FILE, config)

    @classmethod
    def load(cls, directory: str | Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            ModelFileError: A file is missing, damaged or newer; names the file and the reason.
        """
        path = Path(directory) / CONFIG_FILE
        config = read_json(path)
        check_format(path, config, FORMAT)
        rows = checked_field(path, config, "rows", int)
        try:
            spec = NgramSpec.from_json(config.get("ngrams"))
        except ValueError as error:
            raise ModelFileError(f"{path}: {error}") from error
        if config.get("hash") != oracle.HASH_NAME:
            raise ModelFileError(f"{path}: hash {config.get('hash')!r} is not {oracle.HASH_NAME!r}")
        arrays = read_tensors(
            Path(directory) / ARRAYS_FILE,
            {
                "hashes": (np.uint64, (rows,)),
                "counts": (np.int64, (rows,)),
                "train_counts": (np.int64, (rows,)),
            },
        )
        strings_path = Path(directory) / STRINGS_FILE
        ngrams = read_strings(strings_path, rows)
        try:
            return cls(spec, ngrams, arrays["hashes"], arrays["counts"], arrays["train_counts"])
        except DataError as error:
            raise ModelFileError(f"{strings_path}: {error}") from error
