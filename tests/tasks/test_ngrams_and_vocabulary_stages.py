"""Counted n-grams, the vocabulary chosen from them, and the features looked up in it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import write_labelled, write_lines
from sklearn.feature_extraction.text import CountVectorizer

from sparsedistill.errors import DataError
from tasks import corpus, ngrams
from tasks.features import read_features
from tasks.shards import read_shard
from tasks.vocabulary import read_vocabulary


def texts_of(workshop: Workshop, made: dict, *, train: bool) -> list[str]:
    shards = [read_shard(workshop.store, one.input) for one in corpus.shards(made["corpus"][0])]
    if train:
        shards.append(read_shard(workshop.store, made["dataset"][0].as_input()))
    return [text for shard in shards for text in shard.texts]


def counted(texts: list[str], **settings: object) -> Counter[str]:
    vectorizer = CountVectorizer(ngram_range=(1, 4), **settings)
    matrix = vectorizer.fit_transform(texts).sum(axis=0).A1
    return Counter(dict(zip(vectorizer.get_feature_names_out(), matrix.tolist(), strict=True)))


def test_shards_and_train_are_counted_dev_and_test_are_not(workshop: Workshop):
    made = workshop.make("ngrams")
    labels = [job.label for job in workshop.jobs("ngrams")]
    assert labels == ["shard 0", "shard 1", "shard 2", "train"]
    occurrences = sum(one.statistics["occurrences"] for one in made["ngrams"])
    assert occurrences == counted(texts_of(workshop, made, train=True)).total()
    assert [one.statistics["texts"] for one in made["ngrams"]] == [200, 200, 200, 120]


def test_counts_are_sorted_by_hash_and_cut_into_its_ranges(workshop: Workshop):
    artifact = workshop.make("ngrams")["ngrams"][0]
    parts = [ngrams.read_range(artifact, i, ("hash",))["hash"] for i in range(ngrams.RANGES)]
    for index, part in enumerate(parts):
        assert set((part.to_numpy() >> np.uint64(58)).tolist()) <= {index}
    every = np.concatenate([part.to_numpy() for part in parts])
    assert np.all(np.diff(every.astype(object)) > 0)
    assert len(every) == artifact.statistics["distinct"]


def test_the_vocabulary_has_the_most_frequent_ngrams_of_corpus_and_train(workshop: Workshop):
    made = workshop.make("vocabulary", vocabulary={"size": 500})
    found = read_vocabulary(made["vocabulary"][0])
    truth = counted(texts_of(workshop, made, train=True))
    best = sorted(truth.items(), key=lambda kv: (-kv[1], kv[0].count(" "), kv[0].encode()))[:500]
    assert [(found[row], int(found.counts[row])) for row in range(500)] == best


def test_the_vocabulary_knows_how_often_train_has_each_ngram(workshop: Workshop):
    made = workshop.make("vocabulary", vocabulary={"size": 500})
    found = read_vocabulary(made["vocabulary"][0])
    train = counted(list(read_shard(workshop.store, made["dataset"][0].as_input()).texts))
    assert found.train_counts.tolist() == [train[found[row]] for row in range(500)]
    assert made["vocabulary"][0].statistics["rows_in_train"] == np.count_nonzero(found.train_counts)


def test_the_same_rows_whatever_the_number_of_shards(workshop: Workshop):
    files = []
    for rows in (50, 600):
        settings = {"corpus": {"rows_per_shard": rows}, "vocabulary": {"size": 700}}
        artifact = workshop.make("vocabulary", **settings)["vocabulary"][0]
        files.append({f.name: f.sha256 for f in artifact.manifest.files})
    assert files[0] == files[1]


def test_a_vocabulary_larger_than_the_number_of_ngrams_holds_them_all(workshop: Workshop):
    made = workshop.make("vocabulary", vocabulary={"size": 1_000_000})
    statistics = made["vocabulary"][0].statistics
    distinct = len(counted(texts_of(workshop, made, train=True)))
    assert statistics["rows"] == statistics["distinct"] == distinct
    assert sum(statistics["rows_by_order"]) == distinct


def test_weight_of_train_moves_its_ngrams_up(workshop: Workshop):
    plain, weighted = (
        workshop.make("vocabulary", vocabulary={"size": 400, "train_weight": w})["vocabulary"][0]
        for w in (1, 20)
    )
    assert weighted.statistics["rows_in_train"] > plain.statistics["rows_in_train"]


def test_a_vocabulary_without_any_ngram_says_which_settings_to_look_at(workshop: Workshop):
    with pytest.raises(DataError, match=r"no n-gram occurs 100000 times or more.*min_count"):
        workshop.make("vocabulary", vocabulary={"min_count": 100_000})


def test_texts_of_one_letter_words_have_no_ngram_and_are_refused(workshop: Workshop):
    write_labelled(workshop.data / "train.csv", [("a", "garden"), ("b", "kitchen")] * 6)
    write_labelled(workshop.data / "dev.csv", [("c", "garden"), ("d", "kitchen")])
    write_labelled(workshop.data / "test.csv", [("e", "garden"), ("f", "kitchen")])
    write_lines(workshop.data / "corpus.txt", ["x", "y", "! ?"])
    with pytest.raises(DataError, match=r"the vocabulary is empty; .*\[ngrams\] tokenizer"):
        workshop.make("vocabulary")
    assert workshop.make("vocabulary", ngrams={"tokenizer": "whitespace"})


def test_features_are_the_rows_of_the_known_ngrams_with_multiplicity(workshop: Workshop):
    made = workshop.make("features", vocabulary={"size": 300})
    known = read_vocabulary(made["vocabulary"][0])
    words = [known[row] for row in range(len(known))]
    vectorizer = CountVectorizer(ngram_range=(1, 4), vocabulary=words)
    for text_shard, artifact in zip(made["dataset"], made["features"][-3:], strict=True):
        texts = read_shard(workshop.store, text_shard.as_input())
        ids, bags = read_features(artifact)
        assert ids.tolist() == texts.ids.tolist()
        truth = vectorizer.transform(list(texts.texts)).toarray()
        mine = np.zeros_like(truth)
        for row in range(len(bags)):
            np.add.at(mine[row], bags[row], 1)
        assert np.array_equal(mine, truth)
        assert artifact.statistics["known"] == truth.sum()


def test_rows_without_ngrams_are_empty_bags_and_counted(workshop: Workshop):
    lines = (workshop.data / "corpus.txt").read_text().splitlines()
    write_lines(workshop.data / "corpus.txt", ["?", *lines[:50], "a b c"])
    shard = workshop.make("features")["features"][0]
    _, bags = read_features(shard)
    assert (len(bags[0]), len(bags[51])) == (0, 0)
    assert shard.statistics["texts_without"] == 2
    assert shard.statistics["rows"] == 52


def test_features_keep_the_first_max_ngrams(workshop: Workshop):
    full, cut = (
        read_features(workshop.make("features", features={"max_ngrams": n})["features"][-1])[1]
        for n in (2048, 3)
    )
    assert max(len(cut[row]) for row in range(len(cut))) == 3
    assert all(cut[row].tolist() == full[row][:3].tolist() for row in range(len(full)))
