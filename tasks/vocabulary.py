"""The vocabulary: the most frequent n-grams of corpus and ``train`` together.

The shards' counts are walked side by side, by hash, and what can still be chosen is kept: the
memory this takes is that of the rows asked for and of one row group a shard. Only then are the
strings of those read off the texts, checked against their hashes, and used to settle ties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sparsedistill.coverage import coverage
from sparsedistill.errors import DataError
from sparsedistill.memory import give_back
from sparsedistill.merging import merge_counted
from sparsedistill.ngram_index import NgramIndex
from sparsedistill.selection import (
    Selection,
    UnprovedError,
    finish,
    pool_bytes,
    select_top,
)
from sparsedistill.text.recovery import recover
from sparsedistill.vocabulary import Vocabulary
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.counts import CountFile
from tasks.ngrams import NgramsConfig
from tasks.shards import TextShard, open_input, read_shard, read_text_batches
from tasks.stage import Job, Made, Progress, Stage, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sparsedistill.counted import CountedHashes
    from sparsedistill.text.buffers import TextBuffer
    from sparsedistill.text.ngram_spec import NgramSpec
    from storage import Artifact, Input

KIND, VERSION = "vocabulary", 2
_ALL = 1 << 40


class VocabularyConfig(Table):
    """``[vocabulary]``: how many n-grams have a row, and which."""

    size: int = Field(1_000_000, ge=1)
    min_count: int = Field(1, ge=1, description="rarer n-grams get no row")
    train_weight: int = Field(1, ge=1, description="how often an occurrence in train counts")


def jobs(
    config: VocabularyConfig,
    ngrams: NgramsConfig,
    shards: Sequence[TextShard],
    counts: Sequence[Made],
    held_out: Mapping[str, Made],
    *,
    memory: int,
    threads: int,
) -> list[Job]:
    """Return the one job of the vocabulary.

    Args:
        config: The table ``[vocabulary]``.
        ngrams: As the shards were counted.
        shards: The corpus's, then ``train``.
        counts: Of those shards, in the same order.
        held_out: Splits by name that the vocabulary is measured on, and not made from.
        memory: Bytes for it.
        threads: For it.
    """
    recipe = Recipe(
        KIND,
        VERSION,
        config={**config.model_dump(mode="json"), **ngrams.spec().to_json()},
        inputs={
            "counts": tuple(made.as_input() for made in counts),
            "texts": tuple(shard.input for shard in shards),
            **{name: (made.as_input(),) for name, made in held_out.items()},
        },
    )
    return [
        Job(
            recipe,
            runtime={
                "ngrams": ngrams.model_dump(mode="json"),
                "held_out": list(held_out),
                "memory": memory,
                "threads": threads,
            },
        )
    ]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Choose the n-grams and write them in the order of their rows."""
    config = VocabularyConfig.model_validate(
        {name: job.recipe.config[name] for name in VocabularyConfig.model_fields}
    )
    spec = NgramsConfig.model_validate(job.runtime["ngrams"]).spec()
    counts = [open_input(store, reference) for reference in job.recipe.inputs["counts"]]
    bound = sum(_dropped(artifact) for artifact in counts)
    with writer.scratch() as scratch:
        selection = _select(job, config, counts, bound, scratch, progress)
    give_back()
    texts = _Texts(store, job.recipe.inputs["texts"], config.train_weight)
    entries, strings = recover(texts, spec, selection.hash, threads=job.runtime["threads"])
    give_back()
    progress(0.8)
    exact = None
    if bound:
        exact = texts.count(strings, spec, threads=job.runtime["threads"])
    statistics = selection.statistics()
    for name in ("distinct_by_order", "occurrences_by_order"):
        statistics[name] = statistics[name][: spec.max_n]  # type: ignore[index]
    chosen = finish(selection, entries, strings, exact, threads=job.runtime["threads"])
    if not len(chosen.strings):
        raise DataError(
            f"no n-gram occurs {config.min_count} times or more, so the vocabulary is empty; lower "
            "[vocabulary] min_count, or check the corpus and [ngrams] tokenizer"
        )
    del selection, entries, strings
    give_back()
    vocabulary = Vocabulary(spec, *chosen, _counts_in(counts[-1], spec, chosen.hashes))
    vocabulary.save(writer.path("vocabulary.json").parent)
    progress(0.9)
    writer.statistics.update({**statistics, **_statistics(vocabulary), "bound": bound})
    writer.statistics["coverage"] = {
        split: coverage(
            vocabulary,
            read_shard(store, job.recipe.inputs[split][0]).texts,
            threads=job.runtime["threads"],
        )
        for split in job.runtime["held_out"]
    }


STAGE = Stage(KIND, VERSION, build)


def read_vocabulary(artifact: Artifact) -> Vocabulary:
    """Return a vocabulary as it was written."""
    return Vocabulary.load(artifact.directory())


class _Texts:
    """All texts that were counted, batch by batch."""

    def __init__(self, store: ArtifactStore, shards: Sequence[Input], train_weight: int) -> None:
        self._store = store
        self._shards = shards
        self._train_weight = train_weight

    def __iter__(self) -> Iterator[TextBuffer]:
        return (batch for _, batch in self._weighted())

    def count(self, strings: TextBuffer, spec: NgramSpec, *, threads: int) -> npt.NDArray[np.int64]:
        """Return how often each n-gram occurs in all, train weighted, int64 [strings]."""
        candidates = Vocabulary.from_strings(spec, strings)
        totals = np.zeros(len(strings), np.int64)
        for weight, batch in self._weighted():
            rows = candidates.bags(batch, max_ngrams=_ALL, threads=threads).rows
            totals += weight * np.bincount(rows, minlength=len(totals))
        return totals

    def _weighted(self) -> Iterator[tuple[int, TextBuffer]]:
        for number, shard in enumerate(self._shards, 1):
            weight = self._train_weight if number == len(self._shards) else 1
            for _, batch in read_text_batches(self._store, shard):
                yield weight, batch.texts


def _select(
    job: Job,
    config: VocabularyConfig,
    counts: Sequence[Artifact],
    bound: int,
    scratch: Path,
    progress: Progress,
) -> Selection:
    spec = NgramsConfig.model_validate(job.runtime["ngrams"]).spec()
    weights = [*(1 for _ in counts[1:]), config.train_weight]
    sources = [
        CountFile(artifact, spec, weight=weight)
        for artifact, weight in zip(counts, weights, strict=True)
    ]
    total = max(1, sum(sum(source.entries.values()) for source in sources))
    memory, threads = int(job.runtime["memory"]), int(job.runtime["threads"])

    def merged() -> Iterator[CountedHashes]:
        done = 0
        for part in merge_counted(
            sources,
            memory=memory - pool_bytes(config.size),
            spill=scratch,
            threads=threads,
        ):
            yield part
            done += len(part)
            progress(0.6 * done / total)

    try:
        return select_top(
            merged(), size=config.size, min_count=config.min_count, bound=bound, memory=memory
        )
    except UnprovedError as error:
        shards = max(1, len(counts) - 1)
        provable = (error.lowest - 1) // shards + 1
        size = f"[vocabulary] size to {error.provable} or " if error.provable else "[vocabulary] "
        raise DataError(
            f"{error}. Set [ngrams] drop_below to {provable} or less, or {size}min_count to "
            f"{error.bound + 1}, or use larger shards"
        ) from error


def _dropped(counts: Artifact) -> int:
    dropped: Any = counts.statistics["dropped"]
    return int(dropped["bound"])


def _counts_in(
    train: Artifact, spec: NgramSpec, hashes: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Return how often each n-gram was counted in ``train``, int64 [hashes]."""
    found = np.zeros(len(hashes), np.int64)
    index = NgramIndex.build(hashes, np.zeros(0, np.uint64))
    source = CountFile(train, spec)
    for order in source.entries:
        for part in source.parts(order):
            rows = index.find(part.hash)
            known = rows >= 0
            found[rows[known]] = part.count[known]
    return found


def _statistics(vocabulary: Vocabulary) -> dict[str, Any]:
    orders = np.bincount(vocabulary.orders, minlength=vocabulary.spec.max_n + 1)
    return {
        "rows": len(vocabulary),
        "rows_by_order": orders[1:].tolist(),
        "rows_in_train": int(np.count_nonzero(vocabulary.train_counts)),
        "lowest_count": int(vocabulary.counts[-1]),
    }
