"""The sample of the corpus: from all over it, always the same, no more than asked for."""

from __future__ import annotations

import pytest
from helpers.stages import Workshop

from storage import Input
from tasks.corpus import shards
from tasks.reference import reference_shards, reference_texts
from tasks.shards import TextShard, read_shard


def corpus_of(workshop: Workshop) -> list[TextShard]:
    return shards(workshop.make("corpus", corpus={"rows_per_shard": 130})["corpus"][0])


def test_rows_are_taken_at_equal_steps_from_all_shards(workshop: Workshop):
    corpus = corpus_of(workshop)
    inputs = [shard.input for shard in corpus]
    every = [text for one in inputs for text in read_shard(workshop.store, one).texts]
    assert len(corpus) > 2
    for rows in (1, 7, len(every) - 1):
        found = list(reference_texts(workshop.store, inputs, rows=rows))
        assert found == [every[i * len(every) // rows] for i in range(rows)]


def test_of_a_small_corpus_all_rows_are_taken(workshop: Workshop):
    corpus = corpus_of(workshop)
    found = reference_texts(workshop.store, [shard.input for shard in corpus])
    assert len(found) == sum(shard.rows for shard in corpus)


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [0]), (3, [0, 1, 2])])
def test_few_shards_are_all_taken(count: int, expected: list[int]):
    corpus = [
        TextShard(f"shard {i}", Input("corpus_shard", str(i), str(i)), 5) for i in range(count)
    ]
    assert [int(shard.input.key) for shard in reference_shards(corpus)] == expected


def test_of_many_shards_16_are_taken_the_first_and_the_last_among_them():
    corpus = [
        TextShard(f"shard {i}", Input("corpus_shard", str(i), str(i)), 5) for i in range(1000)
    ]
    found = [int(shard.input.key) for shard in reference_shards(corpus)]
    assert len(set(found)) == 16
    assert (found[0], found[-1]) == (0, 999)
    assert found == sorted(found)
