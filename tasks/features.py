"""Features: for every text of a shard, the vocabulary's rows of the n-grams it has.

A shard holds ``id`` and ``rows`` (a list a text, n-grams that occur twice there twice) in the order
of its texts. What it says of how well the texts are known goes to the run report.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from sparsedistill.bags import Bags
from sparsedistill.vocabulary import MAX_NGRAMS, Vocabulary
from storage import ArtifactStore, ArtifactWriter, Recipe, read_table, write_table
from tasks.shards import TextShard, open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input
from tasks.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage import Artifact, Input

KIND, VERSION = "features", 1
FILE = "features.parquet"


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
    """Look up the n-grams of one shard."""
    del progress
    texts = read_shard(store, single_input(job.recipe, "texts"))
    vocabulary = _vocabulary(store.url, single_input(job.recipe, "vocabulary"))
    max_ngrams = int(job.recipe.config["max_ngrams"])  # type: ignore[arg-type]
    bags = vocabulary.bags(texts.texts, max_ngrams=max_ngrams, threads=job.runtime["threads"])
    column = pa.LargeListArray.from_arrays(pa.array(bags.offsets), pa.array(bags.rows))
    write_table(writer.path(FILE), pa.table({"id": pa.array(texts.ids), "rows": column}))
    writer.set_rows(FILE, len(bags))
    writer.statistics.update(_statistics(bags))


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


def _statistics(bags: Bags) -> dict[str, Any]:
    known = np.diff(bags.offsets)
    p10, p50, p90 = np.percentile(known, (10, 50, 90)) if len(known) else (0.0, 0.0, 0.0)
    return {
        "rows": len(bags),
        "known": int(known.sum()),
        "known_per_text": {
            "mean": float(known.mean()) if len(known) else 0.0,
            "p10": float(p10),
            "p50": float(p50),
            "p90": float(p90),
        },
        "texts_without": int(np.count_nonzero(known == 0)),
    }
