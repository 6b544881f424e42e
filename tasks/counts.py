"""The files of an `ngrams` artifact: its counts, as merging takes them.

One table an order, sorted by hash, cut into row groups of a fixed number of entries, so that many
files can be walked at once while each has one row group in memory. Hashes are stored as differences
(`DELTA_BINARY_PACKED`): 6 bytes an n-gram, its count included.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sparsedistill.counted import PART, CountedHashes
from storage import ArtifactWriter, DamagedArtifactError, open_writer, read_row_groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sparsedistill.text.ngram_spec import NgramSpec
    from storage import Artifact

_SCHEMA = pa.schema({"hash": pa.uint64(), "count": pa.int64()})
_ENCODINGS = {"hash": "DELTA_BINARY_PACKED"}


def file_of(order: int) -> str:
    """Return the name of the file with the n-grams of one length."""
    return f"order-{order}.parquet"


def write_counts(
    parts: Iterable[CountedHashes], spec: NgramSpec, writer: ArtifactWriter
) -> dict[int, int]:
    """Write counts that come by order and then by ascending hash; return the entries by order."""
    entries = dict.fromkeys(range(spec.min_n, spec.max_n + 1), 0)
    with ExitStack() as stack:
        files = {
            order: stack.enter_context(
                open_writer(writer.path(file_of(order)), _SCHEMA, encodings=_ENCODINGS)
            )
            for order in entries
        }
        for part in _cut(parts):
            entries[part.order] += len(part)
            columns = [pa.array(part.hash), pa.array(part.count)]
            files[part.order].write_table(pa.table(columns, schema=_SCHEMA))
    for order, rows in entries.items():
        writer.set_rows(file_of(order), rows)
    return entries


class CountFile:
    """The counts of an artifact, as `merge_counted` takes them.

    Attributes:
        entries: Different n-grams by order.
    """

    def __init__(self, artifact: Artifact, spec: NgramSpec, *, weight: int = 1) -> None:
        """Look at nothing but the manifest.

        Args:
            artifact: Of the stage `ngrams`.
            spec: As it was counted.
            weight: What counts are multiplied by.
        """
        self._artifact = artifact
        self._weight = weight
        orders = range(spec.min_n, spec.max_n + 1)
        self.entries: Mapping[int, int] = {
            order: artifact.entry(file_of(order)).rows or 0 for order in orders
        }

    def parts(self, order: int) -> Iterator[CountedHashes]:
        """Yield the n-grams of one order by ascending hash, at most ``PART`` at a time."""
        name = file_of(order)
        for group in read_row_groups(self._artifact.path(name), _SCHEMA.names):
            count = group["count"].to_numpy()
            if len(count) and count.min() < 1:
                of = f"{self._artifact.kind}/{self._artifact.key}"
                raise DamagedArtifactError(of, name, "an n-gram is counted less than once")
            yield CountedHashes(
                order, group["hash"].to_numpy(), count * self._weight if self._weight > 1 else count
            )


def _cut(parts: Iterable[CountedHashes]) -> Iterator[CountedHashes]:
    """Cut counts anew, into parts of ``PART`` entries, so that files do not tell how they came."""
    order, hashes, counts, held = 0, [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for part in parts:
        if part.order != order:
            if held:
                yield CountedHashes(order, np.concatenate(hashes), np.concatenate(counts))
            order, hashes, counts, held = part.order, [], [], 0
        hashes.append(part.hash)
        counts.append(part.count)
        held += len(part)
        if held >= PART:
            whole = np.concatenate(hashes), np.concatenate(counts)
            last = held - held % PART
            for begin in range(0, last, PART):
                piece = slice(begin, begin + PART)
                yield CountedHashes(order, whole[0][piece], whole[1][piece])
            hashes, counts, held = [whole[0][last:]], [whole[1][last:]], held - last
    if held:
        yield CountedHashes(order, np.concatenate(hashes), np.concatenate(counts))
