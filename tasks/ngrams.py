"""Counted n-grams of one shard of texts, by hash.

A shard's counts are an artifact of their own, so a corpus that grew has only its new shards
counted. The file is sorted by hash and cut into one row group for each range of the hash's first
bits: the vocabulary adds up all shards one range at a time. Where an n-gram first stands in the
shard is kept instead of its string; the few that are chosen are read off the texts later.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from sparsedistill.text.counting import NgramCounts, count_ngrams
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.oracle import HASH_NAME
from storage import ArtifactStore, ArtifactWriter, Recipe, open_writer
from tasks.shards import TextShard, read_shard
from tasks.stage import Job, Progress, Stage, Table, single_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from storage import Artifact

KIND, VERSION = "ngrams", 1
FILE = "counts.parquet"
RANGE_BITS = 6
RANGES = 1 << RANGE_BITS
_SCHEMA = pa.schema(
    {
        "hash": pa.uint64(),
        "count": pa.uint32(),
        "order": pa.uint8(),
        "row": pa.uint32(),
        "position": pa.uint32(),
    }
)


class NgramsConfig(Table):
    """``[ngrams]``: which n-grams a text has."""

    tokenizer: Literal["word", "whitespace", "character"] = "word"
    min_n: int = Field(1, ge=1, le=7)
    max_n: int = Field(4, ge=1, le=7)

    @model_validator(mode="after")
    def _ordered(self) -> NgramsConfig:
        if self.min_n > self.max_n:
            raise ValueError("min_n must not be more than max_n")
        return self

    def spec(self) -> NgramSpec:
        """Return what the library's functions take."""
        return NgramSpec(tokenizer=self.tokenizer, min_n=self.min_n, max_n=self.max_n)


def jobs(config: NgramsConfig, shards: Sequence[TextShard], *, threads: int) -> list[Job]:
    """Return one job a shard."""
    return [
        Job(
            Recipe(
                KIND,
                VERSION,
                config={**config.spec().to_json(), "hash": HASH_NAME},
                inputs={"texts": (shard.input,)},
            ),
            runtime={"config": config.model_dump(mode="json"), "threads": threads},
            label=shard.name,
        )
        for shard in shards
    ]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Count one shard."""
    del progress
    spec = NgramsConfig.model_validate(job.runtime["config"]).spec()
    texts = read_shard(store, single_input(job.recipe, "texts"))
    counts = count_ngrams(texts.texts, spec, threads=job.runtime["threads"])
    with open_writer(writer.path(FILE), _SCHEMA) as file:
        for part in _ranges(counts):
            file.write_table(part)
    writer.set_rows(FILE, len(counts))
    writer.statistics.update(
        distinct=len(counts), occurrences=int(counts.count.sum()), texts=len(texts)
    )


STAGE = Stage(KIND, VERSION, build)


def read_range(artifact: Artifact, index: int, columns: Sequence[str]) -> pa.Table:
    """Return some columns of one of the ``RANGES`` ranges of hashes."""
    with pq.ParquetFile(artifact.path(FILE)) as file:
        return file.read_row_group(index, columns=list(columns))


def _ranges(counts: NgramCounts) -> Iterator[pa.Table]:
    firsts = np.arange(RANGES, dtype=np.uint64) << np.uint64(64 - RANGE_BITS)
    bounds = [*np.searchsorted(counts.hash, firsts).tolist(), len(counts)]
    for begin, end in itertools.pairwise(bounds):
        columns = {name: pa.array(getattr(counts, name)[begin:end]) for name in _SCHEMA.names}
        yield pa.table(columns, schema=_SCHEMA)
