"""The vocabulary: the most frequent n-grams of corpus and ``train`` together.

The shards' counts are added up one range of hashes at a time, so the memory this takes is that of
one range and of the n-grams that can still be chosen. Only then are the strings of those read off
the texts, checked against their hashes, and used to settle ties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sparsedistill.errors import DataError
from sparsedistill.merging import CountedHashes, merge_counted
from sparsedistill.selection import Selection, finish, select_top
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.counting import ngram_strings
from sparsedistill.vocabulary import Vocabulary
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.ngrams import RANGES, NgramsConfig, read_range
from tasks.shards import TextShard, open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sparsedistill.text.ngram_spec import NgramSpec
    from storage import Artifact, Input

KIND, VERSION = "vocabulary", 1
_ENTRY_BITS = 36
_ENTRY_MASK = (1 << _ENTRY_BITS) - 1


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
) -> list[Job]:
    """Return the one job of the vocabulary.

    Args:
        config: The table ``[vocabulary]``.
        ngrams: As the shards were counted.
        shards: The corpus's, then ``train``.
        counts: Of those shards, in the same order.
    """
    recipe = Recipe(
        KIND,
        VERSION,
        config={**config.model_dump(mode="json"), **ngrams.spec().to_json()},
        inputs={
            "counts": tuple(made.as_input() for made in counts),
            "texts": tuple(shard.input for shard in shards),
        },
    )
    return [Job(recipe, runtime={"ngrams": ngrams.model_dump(mode="json")})]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Choose the n-grams and write them in the order of their rows."""
    config = VocabularyConfig.model_validate(
        {name: job.recipe.config[name] for name in VocabularyConfig.model_fields}
    )
    spec = NgramsConfig.model_validate(job.runtime["ngrams"]).spec()
    counts = [open_input(store, reference) for reference in job.recipe.inputs["counts"]]
    ranges = _merged_ranges(counts, config.train_weight, progress)
    selection = select_top(ranges, size=config.size, min_count=config.min_count)
    if selection.rows == 0:
        raise DataError(
            f"no n-gram occurs {config.min_count} times or more, so the vocabulary is empty; lower "
            "[vocabulary] min_count, or check the corpus and [ngrams] tokenizer"
        )
    strings = _strings(selection, counts, job.recipe.inputs["texts"], store, spec)
    chosen = finish(selection, strings)
    hashes = selection.hash[chosen]
    vocabulary = Vocabulary(
        spec, strings.take(chosen), hashes, selection.count[chosen], _counts_in(counts[-1], hashes)
    )
    vocabulary.save(writer.path("vocabulary.json").parent)
    writer.statistics.update({**selection.statistics(), **_statistics(vocabulary)})


STAGE = Stage(KIND, VERSION, build)


def read_vocabulary(artifact: Artifact) -> Vocabulary:
    """Return a vocabulary as it was written."""
    return Vocabulary.load(artifact.directory())


def _merged_ranges(
    counts: Sequence[Artifact], train_weight: int, progress: Progress
) -> Iterator[CountedHashes]:
    """Yield the added-up counts of every range; ``origin`` tells shard and entry of the first."""
    read = np.zeros(len(counts), np.int64)
    for index in range(RANGES):
        yield merge_counted(_parts(counts, index, read, train_weight))
        progress(0.7 * (index + 1) / RANGES)


def _parts(
    counts: Sequence[Artifact], index: int, read: npt.NDArray[np.int64], train_weight: int
) -> Iterator[CountedHashes]:
    for number, artifact in enumerate(counts):
        part = read_range(artifact, index, ("hash", "count", "order"))
        weight = train_weight if number == len(counts) - 1 else 1
        entries = np.arange(read[number], read[number] + part.num_rows)
        read[number] += part.num_rows
        yield CountedHashes(
            part["hash"].to_numpy(),
            part["count"].to_numpy().astype(np.int64) * weight,
            part["order"].to_numpy(),
            (number << _ENTRY_BITS) | entries,
        )


def _strings(
    selection: Selection,
    counts: Sequence[Artifact],
    texts: Sequence[Input],
    store: ArtifactStore,
    spec: NgramSpec,
) -> TextBuffer:
    """Read the strings of the candidates off the texts, in the order of the candidates."""
    shard_of = selection.origin >> _ENTRY_BITS
    by_shard = np.argsort(shard_of, kind="stable")
    packed: list[TextBuffer] = []
    for number in np.unique(shard_of):
        members = by_shard[shard_of[by_shard] == number]
        rows, positions = _places(counts[number], selection.origin[members] & _ENTRY_MASK)
        packed.append(
            ngram_strings(
                read_shard(store, texts[number]).texts,
                spec,
                rows=rows,
                positions=positions,
                orders=selection.order[members],
            )
        )
    back = np.empty_like(by_shard)
    back[by_shard] = np.arange(len(by_shard))
    return TextBuffer.concat(packed).take(back)


def _places(
    counts: Artifact, entries: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    parts = [read_range(counts, index, ("row", "position")) for index in range(RANGES)]
    rows = np.concatenate([part["row"].to_numpy() for part in parts])
    positions = np.concatenate([part["position"].to_numpy() for part in parts])
    return rows[entries], positions[entries]


def _counts_in(train: Artifact, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return how often each hash was counted in ``train``, int64 [hashes]."""
    parts = [read_range(train, index, ("hash", "count")) for index in range(RANGES)]
    known = np.concatenate([part["hash"].to_numpy() for part in parts])
    counted = np.concatenate([part["count"].to_numpy() for part in parts]).astype(np.int64)
    if len(known) == 0:
        return np.zeros(len(hashes), np.int64)
    where = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    return np.where(known[where] == hashes, counted[where], 0)


def _statistics(vocabulary: Vocabulary) -> dict[str, Any]:
    orders = np.bincount(vocabulary.orders, minlength=vocabulary.spec.max_n + 1)
    return {
        "rows": len(vocabulary),
        "rows_by_order": orders[1:].tolist(),
        "rows_in_train": int(np.count_nonzero(vocabulary.train_counts)),
    }
