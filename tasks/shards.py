"""Shards as the stages pass them on: rows of ``id, text``, to which others are aligned by id."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.counting import most_ngrams
from storage import read_batches, read_table, size_in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sparsedistill.text.ngram_spec import NgramSpec
    from storage import Artifact, ArtifactStore, Input
    from tasks.stage import Made

TEXTS_FILE = "texts.parquet"
# Bytes of texts held at a time by a stage that goes through a shard.
_BATCH = 2 << 20
# What reading them takes: the batch, its pages, the columns they were decoded from.
READING_BYTES = 4 * _BATCH


@dataclass(frozen=True, slots=True)
class TextShard:
    """A shard of texts, made or only planned: a corpus shard, or one split of the labelled data.

    Attributes:
        name: For people: ``train``, ``shard 3``.
        input: The artifact, as a recipe names it.
        rows: How many there are.
    """

    name: str
    input: Input
    rows: int


@dataclass(frozen=True, slots=True)
class Texts:
    """The rows of a text shard.

    Attributes:
        ids: uint64 [rows].
        texts: The rows' texts.
        labels: Index of each row's label, int64 [rows]; None in a corpus shard.
        label_names: Names by index; empty in a corpus shard.
    """

    ids: npt.NDArray[np.uint64]
    texts: TextBuffer
    labels: npt.NDArray[np.int64] | None
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


def text_table(
    ids: npt.NDArray[np.uint64],
    texts: Sequence[str] | pa.Array,
    *,
    labels: Sequence[int] | None = None,
    label_names: Sequence[str] = (),
) -> pa.Table:
    """Return the table of a text shard: ``id``, ``text`` and, where labelled, ``label``."""
    columns: dict[str, Any] = {"id": pa.array(ids), "text": pa.array(texts, pa.large_string())}
    if labels is None:
        return pa.table(columns)
    columns["label"] = pa.array(labels, pa.int32())
    return pa.table(columns).replace_schema_metadata({"label_names": json.dumps(list(label_names))})


def read_texts_of(artifact: Artifact) -> Texts:
    """Read a text shard."""
    table = read_table(artifact.path(TEXTS_FILE))
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    labelled = "label" in table.column_names
    return Texts(
        ids=table["id"].to_numpy(),
        texts=TextBuffer.from_arrow(table["text"]),
        labels=table["label"].to_numpy().astype(np.int64) if labelled else None,
        label_names=tuple(json.loads(metadata[b"label_names"])) if labelled else (),
    )


def open_input(store: ArtifactStore, reference: Input) -> Artifact:
    """Return the artifact that a recipe names."""
    return store.get(reference.kind, reference.key)


def read_shard(store: ArtifactStore, reference: Input) -> Texts:
    """Read the text shard that a recipe names."""
    return read_texts_of(open_input(store, reference))


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Some rows of a text shard.

    Attributes:
        ids: uint64 [rows].
        texts: The rows' texts.
    """

    ids: npt.NDArray[np.uint64]
    texts: TextBuffer


def read_text_batches(store: ArtifactStore, reference: Input) -> Iterator[tuple[float, TextBatch]]:
    """Yield a shard batch by batch, with the share of it that is then read."""
    artifact = open_input(store, reference)
    rows = artifact.entry(TEXTS_FILE).rows or 1
    done = 0
    for batch in read_batches(artifact.path(TEXTS_FILE), ["id", "text"], size=_BATCH):
        done += batch.num_rows
        ids, texts = batch.columns
        yield done / rows, TextBatch(ids.to_numpy(), TextBuffer.from_arrow(texts))


def most_ngrams_of(store: ArtifactStore, reference: Input, spec: NgramSpec) -> int:
    """Return how many n-grams the texts of a shard can have at most."""
    artifact = open_input(store, reference)
    size = size_in_memory(artifact.path(TEXTS_FILE), "text")
    return most_ngrams(size, artifact.entry(TEXTS_FILE).rows or 0, spec)


def shard_of(name: str, made: Made) -> TextShard:
    """Return a split of the labelled data, made or planned, as a shard."""
    return TextShard(name=name, input=made.as_input(), rows=int(made.statistics["rows"]))


def positions(
    wanted: npt.NDArray[np.uint64], among: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Return where each wanted id lies in ``among``, -1 where it does not, int64 [wanted]."""
    if len(among) == 0:
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(among, kind="stable")
    found = np.searchsorted(among[order], wanted).clip(max=len(among) - 1)
    where = order[found]
    return np.where(among[where] == wanted, where, -1)
