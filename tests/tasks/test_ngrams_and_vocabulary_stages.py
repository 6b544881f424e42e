"""Counted n-grams, the vocabulary chosen from them, and the features looked up in it."""

from __future__ import annotations

import errno
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import write_labelled, write_lines
from sklearn.feature_extraction.text import CountVectorizer

from sparsedistill import merging
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.spill import Run
from sparsedistill.tensor_files import write_tensors
from sparsedistill.text.counting import NgramCounter
from storage import Artifact, DamagedArtifactError, Recipe, StoreFullError, read_table
from tasks import corpus, counts, features
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


def test_count_files_hold_each_order_by_ascending_hash_and_tell_their_rows(workshop: Workshop):
    artifact = workshop.make("ngrams")["ngrams"][0]
    statistics = artifact.statistics
    for order in (1, 2, 3, 4):
        table = read_table(artifact.path(counts.file_of(order)))
        hashes = table["hash"].to_numpy()
        assert np.all(hashes[1:] > hashes[:-1])
        assert artifact.entry(counts.file_of(order)).rows == len(hashes)
        assert statistics["distinct_by_order"][order - 1] == len(hashes)
        assert statistics["occurrences_by_order"][order - 1] == table["count"].to_numpy().sum()


def digests(artifact: Artifact) -> dict[str, str]:
    return {file.name: file.sha256 for file in artifact.manifest.files}


@pytest.mark.parametrize("run", [{"memory": "70MB"}, {"memory": "8GB", "threads": 3}], ids=str)
def test_neither_memory_nor_threads_change_a_byte_of_counts_and_vocabulary(
    workshop: Workshop, tmp_path: Path, run: dict[str, object], monkeypatch: pytest.MonkeyPatch
):
    plain = workshop.make("vocabulary", vocabulary={"size": 500})
    # Room for a thousandth of a shard, so that runs are spilled and merged.
    monkeypatch.setattr(NgramCounter, "_affordable", lambda *_: 300)
    monkeypatch.setattr(merging, "_RANGE", 1 << 9)
    other = Workshop(workshop.data, tmp_path / "other")
    made = other.make("vocabulary", vocabulary={"size": 500}, run=run)
    for stage in ("ngrams", "vocabulary"):
        assert list(map(digests, made[stage])) == list(map(digests, plain[stage]))


def least(message: object) -> str:
    found = re.search(r"(\d+MB) are the least", str(message))
    assert found, message
    return found[1]


def test_a_budget_too_small_is_refused_at_once_with_one_that_is_enough(workshop: Workshop):
    run: dict[str, object] = {"memory": "18MB", "workers": 2, "threads": 1}
    with pytest.raises(
        ConfigError, match="18MB is too little to count n-grams in 2 workers of 1 threads"
    ) as caught:
        workshop.config(run=run, vocabulary={"size": 1000})
    run["memory"] = least(caught.value)
    assert workshop.make("vocabulary", run=run, vocabulary={"size": 1000})
    tables = {"vocabulary": {"size": 3_000_000}, "run": {"memory": 90_000_000}}
    with pytest.raises(
        ConfigError, match=r"90000000 is too little to choose 3,000,000 n-grams; 480MB are the lea"
    ):
        workshop.config(**tables)


def test_a_budget_that_is_no_size_is_refused_by_the_configuration(workshop: Workshop):
    with pytest.raises(ConfigError, match=r"run.memory: 'much' is no amount of memory; write it"):
        workshop.config(run={"memory": "much"})


def test_a_tokenizer_that_does_not_exist_is_refused_with_those_that_do(workshop: Workshop):
    with pytest.raises(ConfigError, match=r"ngrams.tokenizer: .*'word', 'whitespace' or 'char"):
        workshop.config(ngrams={"tokenizer": "words"})


def test_a_full_disk_leaves_no_counts_and_says_so(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    workshop.make("corpus")
    monkeypatch.setattr(NgramCounter, "_affordable", lambda *_: 300)
    monkeypatch.setattr(Run, "write", full)
    with pytest.raises(StoreFullError, match="ngrams/"):
        workshop.make("ngrams")
    assert not workshop.store.artifacts("ngrams")
    monkeypatch.undo()
    assert workshop.make("vocabulary")


@pytest.mark.parametrize("where", [0.3, 0.6, 0.999], ids=str)
def test_a_damaged_count_file_is_named(workshop: Workshop, where: float):
    artifact = workshop.make("ngrams")["ngrams"][1]
    path = artifact.path(counts.file_of(3))
    data = bytearray(path.read_bytes())
    at = int(where * len(data))
    data[at : at + 40] = bytes(255 - byte for byte in data[at : at + 40])
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(DamagedArtifactError, match=r"order-3\.parquet.*run the pipeline again"):
        workshop.make("vocabulary")
    assert not workshop.store.artifacts("vocabulary")


def test_what_a_shard_dropped_changes_no_row_or_the_vocabulary_is_refused(workshop: Workshop):
    settings = {"vocabulary": {"size": 60}, "corpus": {"rows_per_shard": 300}}
    whole = workshop.make("vocabulary", **settings)
    lean = workshop.make("vocabulary", **settings, ngrams={"drop_below": 2})
    assert digests(lean["vocabulary"][0]) == digests(whole["vocabulary"][0])
    assert lean["vocabulary"][0].statistics["bound"] == 2
    *corpus_counts, train = lean["ngrams"]
    assert train.statistics["dropped"]["bound"] == 0
    for mine, other in zip(corpus_counts, whole["ngrams"], strict=False):
        dropped = mine.statistics["dropped"]
        assert dropped["bound"] == 1
        assert (
            mine.statistics["distinct"] == other.statistics["distinct"] == other.statistics["kept"]
        )
        assert dropped["distinct"] == other.statistics["kept"] - mine.statistics["kept"] > 0
        assert mine.manifest.size < other.manifest.size
    with pytest.raises(
        DataError, match=r"not proved exact: .* Set \[ngrams\] drop_below to \d+ or less.*larger"
    ):
        workshop.make("vocabulary", vocabulary={"size": 100_000}, ngrams={"drop_below": 3})


def test_the_manifest_tells_how_well_dev_and_test_are_known(workshop: Workshop):
    made = workshop.make("vocabulary", vocabulary={"size": 300})
    known = read_vocabulary(made["vocabulary"][0])
    for split, artifact in zip(("dev", "test"), made["dataset"][1:], strict=True):
        texts = list(read_shard(workshop.store, artifact.as_input()).texts)
        every = counted(texts)
        mine = sum(count for ngram, count in every.items() if known.find(ngram) is not None)
        said = made["vocabulary"][0].statistics["coverage"][split]
        assert (said["occurrences"], said["known"]) == (every.total(), mine)
        assert said["out_of_vocabulary"] == pytest.approx(1 - mine / every.total())
        assert said["by_size"][-1]["share"] == pytest.approx(mine / every.total())


def test_another_test_set_measures_anew_and_chooses_the_same(workshop: Workshop):
    first = workshop.make("features", vocabulary={"size": 300})
    write_labelled(workshop.data / "test.csv", [("a new stone", "garden"), ("mill", "kitchen")])
    second = workshop.make("features", vocabulary={"size": 300})
    assert second["vocabulary"][0].key != first["vocabulary"][0].key
    assert second["vocabulary"][0].digest == first["vocabulary"][0].digest
    assert second["features"][0].key == first["features"][0].key


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


def test_features_are_mapped_and_the_files_of_a_store_cannot_be_changed_through_them(
    workshop: Workshop,
):
    shard = workshop.make("features")["features"][0]
    ids, bags = read_features(shard)
    for array in (ids, bags.rows, bags.offsets):
        assert not array.flags.writeable
        while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
            array = array.base
        assert isinstance(array, np.memmap)


@pytest.mark.parametrize(
    ("ids", "offsets", "reason"),
    [
        ([1, 2], [0, 3], "2 ids but 1 bags"),
        ([1], [0, 2], "must run from 0 to the number of rows, 3"),
        ([1, 2, 3], [0, 3, 1, 3], "must ascend"),
        ([1.0], [0, 3], "ids is F64"),
    ],
)
def test_features_that_do_not_fit_together_are_damaged(
    workshop: Workshop, ids: list[float], offsets: list[int], reason: str
):
    arrays = {"ids": np.array(ids), "offsets": np.array(offsets), "rows": np.zeros(3, np.int32)}
    if arrays["ids"].dtype == np.int64:
        arrays["ids"] = arrays["ids"].astype(np.uint64)
    with workshop.store.create(Recipe("features", 0, {"made by": "a test"})) as writer:
        write_tensors(writer.path(features.FILE), arrays)
    with pytest.raises(DamagedArtifactError, match=reason):
        read_features(writer.artifact)
