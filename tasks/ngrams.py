"""Counted n-grams of one shard of texts, by hash.

A shard's counts are an artifact of their own, so a corpus that grew has only its new shards
counted. Strings are not kept; the few that are chosen are read off the texts later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from sparsedistill.counted import CountedHashes
from sparsedistill.memory import give_back
from sparsedistill.text import counting
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.oracle import HASH_NAME
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.counts import write_counts
from tasks.shards import READING_BYTES, TextShard, most_ngrams_of, read_text_batches
from tasks.stage import Job, Progress, Stage, Table, single_input

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from storage import JSON

KIND, VERSION = "ngrams", 2


class NgramsConfig(Table):
    """``[ngrams]``: which n-grams a text has."""

    tokenizer: Literal["word", "whitespace", "character"] = "word"
    min_n: int = Field(1, ge=1, le=7)
    max_n: int = Field(4, ge=1, le=7)
    drop_below: int = Field(
        1,
        ge=1,
        description="n-grams rarer than this in a shard of the corpus are not kept: for corpora "
        "whose counts would fill the disk; the vocabulary is exact all the same, or refused",
    )

    @model_validator(mode="after")
    def _ordered(self) -> NgramsConfig:
        if self.min_n > self.max_n:
            raise ValueError("min_n must not be more than max_n")
        return self

    def spec(self) -> NgramSpec:
        """Return what the library's functions take."""
        return NgramSpec(tokenizer=self.tokenizer, min_n=self.min_n, max_n=self.max_n)


def jobs(
    config: NgramsConfig,
    corpus: Sequence[TextShard],
    train: TextShard,
    *,
    memory: int,
    threads: int,
) -> list[Job]:
    """Return one job a shard: the corpus's, then ``train``, of which nothing is dropped.

    Args:
        config: The table ``[ngrams]``.
        corpus: Its shards.
        train: The labelled texts to learn from.
        memory: Bytes for one job.
        threads: For one job.
    """
    return [
        Job(
            Recipe(
                KIND,
                VERSION,
                config={
                    **config.spec().to_json(),
                    "hash": HASH_NAME,
                    "drop_below": 1 if shard is train else config.drop_below,
                },
                inputs={"texts": (shard.input,)},
            ),
            runtime={
                "config": config.model_dump(mode="json"),
                "memory": memory,
                "threads": threads,
            },
            label=shard.name,
        )
        for shard in (*corpus, train)
    ]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Count one shard."""
    spec = NgramsConfig.model_validate(job.runtime["config"]).spec()
    drop_below = int(job.recipe.config["drop_below"])  # type: ignore[arg-type]
    texts = 0
    with writer.scratch() as scratch:
        counter = counting.NgramCounter(
            spec,
            memory=job.runtime["memory"] - READING_BYTES,
            occurrences=most_ngrams_of(store, single_input(job.recipe, "texts"), spec),
            spill=scratch,
            threads=job.runtime["threads"],
        )
        for share, batch in read_text_batches(store, single_input(job.recipe, "texts")):
            counter.add(batch.texts)
            texts += len(batch.texts)
            progress(0.6 * share)
        tally = _Tally(spec)
        entries = write_counts(tally.keep(counter.parts(), drop_below), spec, writer)
    del counter
    give_back()
    writer.statistics.update(texts=texts, kept=sum(entries.values()), **tally.statistics())


STAGE = Stage(KIND, VERSION, build)


def least_memory(threads: int) -> int:
    """Return the bytes that counting a shard cannot do without."""
    return counting.least_memory(threads) + READING_BYTES


class _Tally:
    """What goes by on its way to the files, and what does not get there."""

    def __init__(self, spec: NgramSpec) -> None:
        self._distinct = dict.fromkeys(range(spec.min_n, spec.max_n + 1), 0)
        self._occurrences = dict(self._distinct)
        self._dropped = {"bound": 0, "distinct": 0, "occurrences": 0}

    def keep(self, parts: Iterable[CountedHashes], drop_below: int) -> Iterator[CountedHashes]:
        """Yield what occurs often enough."""
        for part in parts:
            occurrences = int(part.count.sum())
            self._distinct[part.order] += len(part)
            self._occurrences[part.order] += occurrences
            kept = part
            if drop_below > 1:
                chosen = np.flatnonzero(part.count >= drop_below)
                kept = CountedHashes(part.order, part.hash[chosen], part.count[chosen])
                if len(kept) < len(part):
                    # What any of them can have, not what these have: it is the bound to be proved.
                    self._dropped["bound"] = drop_below - 1
                    self._dropped["distinct"] += len(part) - len(kept)
                    self._dropped["occurrences"] += occurrences - int(kept.count.sum())
            yield kept

    def statistics(self) -> dict[str, JSON]:
        """Return all n-grams of the shard, and those that were not kept."""
        return {
            "distinct": sum(self._distinct.values()),
            "occurrences": sum(self._occurrences.values()),
            "distinct_by_order": self._from_one(self._distinct),
            "occurrences_by_order": self._from_one(self._occurrences),
            "dropped": dict(self._dropped),
        }

    @staticmethod
    def _from_one(by_order: Mapping[int, int]) -> list[JSON]:
        return [by_order.get(order, 0) for order in range(1, max(by_order) + 1)]
