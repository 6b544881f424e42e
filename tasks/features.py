"""Features: for every text of a shard, the vocabulary's rows of the n-grams it has.

A shard holds ``id`` and ``rows`` (a list a text, n-grams that occur twice there twice) in the order
of its texts. The bytes of row numbers are stored apart, the first of all, then the second, before
they are compressed: 2 bytes an n-gram, half of what they take by themselves; see docs/ngrams.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from sparsedistill.bags import Bags
from sparsedistill.coverage import spread
from sparsedistill.vocabulary import MAX_NGRAMS, Vocabulary
from storage import ArtifactStore, ArtifactWriter, Recipe, open_writer, read_table
from tasks.shards import TextShard, open_input, read_text_batches
from tasks.stage import Job, Made, Progress, Stage, Table, single_input
from tasks.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage import Artifact, Input

KIND, VERSION = "features", 2
FILE = "features.parquet"
_SCHEMA = pa.schema({"id": pa.uint64(), "rows": pa.large_list(pa.int32())})
_ENCODINGS = {"rows.list.element": "BYTE_STREAM_SPLIT"}


class FeaturesConfig(Table):
    """``[features]``: how much of a text is looked at."""

    max_ngrams: int = Field(MAX_NGRAMS, ge=1, description="the first known n-grams of a text")


def jobs(
    config: FeaturesConfig, shards: Sequence[TextShard], vocabulary: Made, *, threads: int
) -> list[Job]:
    """Return one job a shard."""
    return [
        Job(
            Recipe(
                KIND,
                VERSION,
                config=config.model_dump(mode="json"),
                inputs={"texts": (shard.input,), "vocabulary": (vocabulary.as_input(),)},
            ),
            runtime={"threads": threads},
            label=shard.name,
        )
        for shard in shards
    ]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Look up the n-grams of one shard, a batch of texts at a time."""
    vocabulary = _vocabulary(store.url, single_input(job.recipe, "vocabulary"))
    max_ngrams = int(job.recipe.config["max_ngrams"])  # type: ignore[arg-type]
    known = [np.zeros(0, np.int64)]
    with open_writer(writer.path(FILE), _SCHEMA, encodings=_ENCODINGS) as file:
        for share, batch in read_text_batches(store, single_input(job.recipe, "texts")):
            bags = vocabulary.bags(
                batch.texts, max_ngrams=max_ngrams, threads=job.runtime["threads"]
            )
            column = pa.LargeListArray.from_arrays(pa.array(bags.offsets), pa.array(bags.rows))
            file.write_table(pa.table([pa.array(batch.ids), column], schema=_SCHEMA))
            known.append(np.diff(bags.offsets))
            progress(share)
    counts = np.concatenate(known)
    writer.set_rows(FILE, len(counts))
    writer.statistics.update(
        rows=len(counts),
        known=int(counts.sum()),
        known_per_text=spread(counts),
        texts_without=int(np.count_nonzero(counts == 0)),
    )


STAGE = Stage(KIND, VERSION, build)


def read_features(artifact: Artifact) -> tuple[npt.NDArray[np.uint64], Bags]:
    """Return ids uint64 [rows] and bags of a shard."""
    table = read_table(artifact.path(FILE))
    parts = [
        Bags(
            chunk.values.to_numpy()[chunk.offsets[0].as_py() : chunk.offsets[-1].as_py()],
            chunk.offsets.to_numpy().astype(np.int64) - chunk.offsets[0].as_py(),
        )
        for chunk in table["rows"].chunks
    ]
    return table["id"].to_numpy(), Bags.concat(parts)


@lru_cache(maxsize=1)
def _vocabulary(store_url: str, reference: Input) -> Vocabulary:
    """Return the vocabulary, loaded once for all shards that this process looks up."""
    return read_vocabulary(open_input(ArtifactStore(store_url), reference))
