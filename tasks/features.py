"""Features: for every text of a shard, the vocabulary's rows of the n-grams it has.

A shard holds, in the order of its texts, their ``ids``, and their bags as ``rows`` (n-grams that
occur twice are there twice) and ``offsets``. These are plain arrays, to be mapped: training reads
texts at random from more shards than fit the memory. They take twice the disk of the best
compressed form that keeps the n-grams' order; see docs/ngrams.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sparsedistill.coverage import spread
from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.vocabulary import MAX_NGRAMS, Vocabulary
from storage import ArtifactStore, ArtifactWriter, DamagedArtifactError, Recipe
from tasks.bag_file import read_bags, write_bags
from tasks.shards import TEXTS_FILE, TextShard, open_input, read_text_batches
from tasks.stage import Job, Made, Progress, Stage, Table, single_input
from tasks.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sparsedistill.bags import Bags
    from storage import Artifact, Input

KIND, VERSION = "features", 3
FILE = "features.safetensors"


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
    """Look up the n-grams of one shard, a batch of texts at a time.

    Ids and numbers of n-grams are held, some 40 bytes a text.
    """
    texts = single_input(job.recipe, "texts")
    vocabulary = _vocabulary(store.url, single_input(job.recipe, "vocabulary"))
    max_ngrams = int(job.recipe.config["max_ngrams"])  # type: ignore[arg-type]
    count = open_input(store, texts).entry(TEXTS_FILE).rows or 0

    def parts() -> Iterator[tuple[npt.NDArray[np.uint64], Bags]]:
        for share, batch in read_text_batches(store, texts):
            yield (
                batch.ids,
                vocabulary.bags(batch.texts, max_ngrams=max_ngrams, threads=job.runtime["threads"]),
            )
            progress(share)

    counts = write_bags(writer.path(FILE), parts(), count=count)
    writer.set_rows(FILE, len(counts))
    writer.statistics.update(
        rows=len(counts),
        known=int(counts.sum()),
        known_per_text=spread(counts),
        texts_without=int(np.count_nonzero(counts == 0)),
    )


STAGE = Stage(KIND, VERSION, build)


def read_features(artifact: Artifact) -> tuple[npt.NDArray[np.uint64], Bags]:
    """Return ids uint64 [rows] and bags of a shard, mapped: n-grams are read when they are used.

    Raises:
        DamagedArtifactError: The file is not whole, or its arrays do not fit together.
    """
    try:
        return read_bags(artifact.path(FILE))
    except (ModelFileError, DataError) as error:
        raise DamagedArtifactError(f"{artifact.kind}/{artifact.key}", FILE, str(error)) from error


@lru_cache(maxsize=1)
def _vocabulary(store_url: str, reference: Input) -> Vocabulary:
    """Return the vocabulary, loaded once for all shards that this process looks up."""
    return read_vocabulary(open_input(ArtifactStore(store_url), reference))
