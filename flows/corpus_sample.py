"""Some rows of a run's texts, to measure on: from the store where they are there, else from files.

They come from a few places spread over the corpus, the first rows of each, so that a corpus of any
size is sampled in a moment.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sparsedistill.errors import DataError
from storage import expand_sources
from tasks import corpus
from tasks.dataset import read_splits
from tasks.shards import read_text_batches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from flows.config import DistillConfig
    from storage import ArtifactStore, Source
    from tasks.shards import TextShard
    from tasks.stage import Made

    T = TypeVar("T")

_PLACES = 4
_ROWS_A_PLACE = 2048
_TRAIN_ROWS = 1000


def corpus_sample(config: DistillConfig, made: Made | None, store: ArtifactStore) -> list[str]:
    """Return texts of the corpus, some thousands or all of them.

    Args:
        config: Of the run.
        made: The corpus, made or planned; None where it is not known.
        store: Has those of its shards that are made.

    Raises:
        SourceError: No shard is made, and a source cannot be read.
        DataError: No shard is made, and the sources have no row where they begin.
    """
    shards = [] if made is None else stored_shards(made, store)
    if shards:
        return [text for shard in spread(shards, _PLACES) for text in _of_shard(shard, store)]
    sources = expand_sources(config.corpus.sources, base=config.data)
    texts = [text for source in spread(sources, _PLACES) for text in _of_source(source, config)]
    if not texts:
        raise DataError("the sources of the corpus begin with no row to measure on")
    return texts


def train_sample(config: DistillConfig) -> list[str]:
    """Return texts of ``train``, a thousand or all of them.

    Raises:
        SourceError: The file cannot be read.
    """
    return spread(read_splits(config.dataset, base=config.data)["train"].texts, _TRAIN_ROWS)


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return so many of the items, at equal distances, or all where there are no more."""
    count = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def stored_shards(made: Made, store: ArtifactStore) -> list[TextShard]:
    """Return the shards of a corpus, made or planned, that the store has."""
    shards = corpus.shards(made)
    recipes = [corpus.shard_recipe(shard.input.digest) for shard in shards]
    found = store.find_all(recipes)
    return [shard for shard, one in zip(shards, found, strict=True) if one is not None]


def _of_shard(shard: TextShard, store: ArtifactStore) -> list[str]:
    first = islice(read_text_batches(store, shard.input), 1)
    return [
        batch.texts[row]
        for _, batch in first
        for row in spread(range(len(batch.texts)), _ROWS_A_PLACE)
    ]


def _of_source(source: Source, config: DistillConfig) -> list[str]:
    rows: list[str] = []
    for texts in corpus.candidates(source, config.corpus, corpus.Scan()):
        rows += texts[: _ROWS_A_PLACE - len(rows)]
        if len(rows) == _ROWS_A_PLACE:
            break
    return rows
