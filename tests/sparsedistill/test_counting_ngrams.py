import re
import tempfile
import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram_cases import corpora, specs, vectorizer

from sparsedistill import merging, spill
from sparsedistill.errors import ConfigError
from sparsedistill.memory import parse_size
from sparsedistill.text import counting, oracle, partitions
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.counting import NgramCounter, NgramCounts, count_ngrams
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.recovery import ngram_strings

WORDS_AND_PAIRS = NgramSpec("word", 1, 2)


def put_together(parts):
    """All parts as one; that they come by order and then by hash is checked."""
    parts = list(parts)
    order = np.repeat(np.array([part.order for part in parts], np.uint8), [len(p) for p in parts])
    hashes = np.concatenate([np.zeros(0, np.uint64), *(part.hash for part in parts)])
    count = np.concatenate([np.zeros(0, np.int64), *(part.count for part in parts)])
    np.testing.assert_array_equal(np.lexsort((hashes, order)), np.arange(len(hashes)))
    return NgramCounts(hashes, count, order)


def assert_same(found, expected):
    for name in NgramCounts.__slots__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def by_oracle(corpus, spec):
    return Counter(ngram for text in corpus for ngram in oracle.ngrams(text, spec))


def strings_and_counts(texts, spec, counts):
    strings = ngram_strings(texts, spec, counts.hash)
    return dict(zip(strings, counts.count.tolist(), strict=True))


@given(corpora, specs)
@settings(deadline=None, max_examples=300)
def test_counts_and_strings_are_those_of_count_vectorizer(corpus, spec):
    texts = TextBuffer.from_strings(corpus)
    found = strings_and_counts(texts, spec, count_ngrams(texts, spec))
    judge = vectorizer(spec)
    if not any(map(judge.build_analyzer(), corpus)):
        assert found == {}
        return
    sums = np.asarray(judge.fit_transform(corpus).sum(axis=0)).ravel()
    assert found == dict(zip(judge.get_feature_names_out(), sums.tolist(), strict=True))


@given(corpora, specs, st.integers(1, 3))
@settings(deadline=None, max_examples=150)
def test_entries_come_by_order_and_then_by_hash_and_are_the_oracles(corpus, spec, threads):
    counts = count_ngrams(TextBuffer.from_strings(corpus), spec, threads=threads)
    entries = list(zip(counts.order.tolist(), counts.hash.tolist(), strict=True))
    assert entries == sorted(set(entries))
    expected = {
        (ngram.count(" ") + 1, oracle.ngram_hash(ngram)): count
        for ngram, count in by_oracle(corpus, spec).items()
    }
    assert dict(zip(entries, counts.count.tolist(), strict=True)) == expected


@given(
    corpus=corpora,
    spec=specs,
    threads=st.integers(1, 3),
    repeat=st.integers(1, 30),
    cuts=st.lists(st.integers(0, 240), max_size=4),
    occurrences=st.sampled_from([1, 5_000, 10**6]),
    piece=st.sampled_from([5, 1 << 18]),
    partition=st.sampled_from([2, 1 << 8, 1 << 16]),
)
@settings(deadline=None, max_examples=80)
def test_neither_threads_nor_cuts_nor_memory_change_any_count(
    corpus, spec, threads, repeat, cuts, occurrences, piece, partition
):
    texts = TextBuffer.from_strings(corpus * repeat)
    bounds = sorted({0, *(min(cut, len(texts)) for cut in cuts), len(texts)})
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_PIECE", piece)
        patch.setattr(partitions, "_PARTITION", partition)
        counter = NgramCounter(
            spec, occurrences=occurrences, spill=Path(directory), threads=threads
        )
        for start, stop in pairwise(bounds):
            counter.add(texts.slice(start, stop))
        found = put_together(counter.parts())
    expected = by_oracle(corpus, spec)
    assert strings_and_counts(texts, spec, found) == {g: repeat * n for g, n in expected.items()}


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(1)
    words = np.array([f"w{i}" for i in range(5000)])
    return [" ".join(words[rng.zipf(1.3, 60) % len(words)]) for _ in range(1200)]


@pytest.fixture(scope="module")
def texts(corpus):
    return TextBuffer.from_strings(corpus)


@pytest.fixture(scope="module")
def in_memory(texts):
    """The counts of the long corpus with (1, 4)-grams, counted without a limit."""
    return count_ngrams(texts, NgramSpec())


def test_a_corpus_of_many_partitions_and_pieces_is_counted_as_the_oracle_does(
    monkeypatch, corpus, texts, in_memory
):
    expected = by_oracle(corpus, NgramSpec())
    assert strings_and_counts(texts, NgramSpec(), in_memory) == expected
    monkeypatch.setattr(counting, "_PIECE", 100)
    monkeypatch.setattr(partitions, "_PARTITION", 1 << 9)
    for threads in (1, 2, 3):
        assert_same(count_ngrams(texts, NgramSpec(), threads=threads), in_memory)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("occurrences", "partition_bits", "source_bytes"),
    [
        (1, 16, merging.SOURCE_BYTES),
        (20_000, 8, merging.SOURCE_BYTES),
        (1, 16, 900_000_000),  # two sources fit the memory: runs are merged to runs
        (150_000, 10, merging.SOURCE_BYTES),
    ],
)
def test_what_does_not_fit_the_memory_goes_to_disk_and_counts_the_same(
    monkeypatch, tmp_path, texts, in_memory, threads, occurrences, partition_bits, source_bytes
):
    monkeypatch.setattr(partitions, "_PARTITION", 1 << partition_bits)
    monkeypatch.setattr(merging, "SOURCE_BYTES", source_bytes)
    counter = NgramCounter(NgramSpec(), occurrences=occurrences, spill=tmp_path, threads=threads)
    for start in range(0, len(texts), 500):
        counter.add(texts.slice(start, min(start + 500, len(texts))))
    runs = len(list(tmp_path.iterdir()))
    assert runs >= (1 if occurrences > 100_000 else 3)
    assert_same(put_together(counter.parts()), in_memory)


def test_a_row_longer_than_all_the_room_is_counted(tmp_path):
    text = " ".join(f"t{i}" for i in range(20_000))
    texts = TextBuffer.from_strings(["t1 t2", text, "t1 t2"])
    for threads in (1, 2):
        counter = NgramCounter(WORDS_AND_PAIRS, occurrences=1, spill=tmp_path, threads=threads)
        counter.add(texts)
        assert len(list(tmp_path.iterdir())) > 10
        found = put_together(counter.parts())
        assert_same(found, count_ngrams(texts, WORDS_AND_PAIRS))
        assert found.order.tolist() == [1] * 20_000 + [2] * 19_999
        assert sorted(found.count.tolist())[-3:] == [3, 3, 3]
        for path in tmp_path.iterdir():
            path.unlink()


def test_a_long_row_beside_short_ones_is_counted_in_memory_by_several_threads():
    texts = TextBuffer.from_strings(["aa bb " * 250_000, "aa"])
    counts = count_ngrams(texts, NgramSpec(), threads=2)
    assert sorted(counts.count.tolist()) == sorted(
        [250_001, 250_000, *(250_000, 249_999), *(249_999,) * 2, *(249_999, 249_998)]
    )


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(threads):
    with pytest.raises(ConfigError, match=f"threads must be 1 or more, not {threads}"):
        NgramCounter(NgramSpec(), threads=threads)


def test_a_long_text_of_characters_is_counted_in_memory():
    counts = count_ngrams(TextBuffer.from_strings(["a" * 200_000]), NgramSpec("character", 1, 4))
    assert counts.count.tolist() == [200_000, 199_999, 199_998, 199_997]


@pytest.mark.parametrize("threads", [1, 2])
def test_one_ngram_many_times_is_counted_by_pieces(tmp_path, threads):
    texts = TextBuffer.from_strings(["xx " * 300_000, "yy"])
    expected = {"xx": 300_000, "yy": 1, "xx xx": 299_999}
    counts = count_ngrams(texts, WORDS_AND_PAIRS, threads=1)
    assert strings_and_counts(texts, WORDS_AND_PAIRS, counts) == expected
    counter = NgramCounter(WORDS_AND_PAIRS, occurrences=100_000, spill=tmp_path, threads=threads)
    counter.add(texts)
    assert_same(put_together(counter.parts()), counts)


@pytest.mark.parametrize("corpus", [[], [""], ["", "a ! ?"], ["", "", "aa"]])
def test_texts_without_ngrams_give_no_counts(corpus, tmp_path):
    spec = NgramSpec("word", 2, 3)
    texts = TextBuffer.from_strings(corpus)
    counts = count_ngrams(texts, spec, threads=2)
    assert len(counts) == 0
    assert list(ngram_strings(texts, spec, counts.hash)) == []
    counter = NgramCounter(spec, occurrences=1, spill=tmp_path, threads=3)
    counter.add(texts)
    assert list(counter.parts()) == []
    assert list(tmp_path.iterdir()) == []


def test_ngrams_shorter_than_asked_for_are_not_counted():
    texts = TextBuffer.from_strings(["aa bb cc", "dd"])
    counts = count_ngrams(texts, NgramSpec("word", 2, 3))
    assert strings_and_counts(texts, NgramSpec("word", 2, 3), counts) == {
        "aa bb": 1,
        "bb cc": 1,
        "aa bb cc": 1,
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("spec", [NgramSpec(), NgramSpec("word", 1, 7)], ids=str)
def test_too_little_memory_names_what_is_enough(tmp_path, texts, spec, threads):
    with pytest.raises(ConfigError, match="1MB of memory are too little") as caught:
        NgramCounter(spec, memory="1MB", threads=threads)
    enough = re.search(r"(\d+MB) are the least", str(caught.value))[1]
    counter = NgramCounter(spec, memory=enough, spill=tmp_path, threads=threads)
    for _ in range(3):
        counter.add(texts)
    assert list(tmp_path.iterdir())
    counted = put_together(counter.parts())
    once = count_ngrams(texts, spec)
    assert_same(counted, NgramCounts(once.hash, 3 * once.count, once.order))


@pytest.mark.parametrize(("memory", "threads"), [("8MB", 1), ("9MB", 2), ("14MB", 3)])
def test_counting_keeps_to_the_memory(tmp_path, texts, memory, threads):
    count_ngrams(texts.slice(0, 100), NgramSpec(), threads=threads)  # compiles
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        counter = NgramCounter(NgramSpec(), memory=memory, spill=tmp_path, threads=threads)
        for _ in range(8):
            counter.add(texts)
        assert sum(int(part.count.sum()) for part in counter.parts()) > 10**6
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert len(list(tmp_path.iterdir())) >= 2
    # Beside it, room for one stride is reserved for each thread, of which little is touched.
    assert peak < parse_size(memory) + threads * 12 * 10**5


def test_without_memory_the_number_of_occurrences_must_be_known():
    with pytest.raises(ConfigError, match="occurrences"):
        NgramCounter(NgramSpec(), memory=None)


def test_without_a_directory_to_spill_to_all_must_fit(texts):
    counter = NgramCounter(NgramSpec(), occurrences=1)
    with pytest.raises(ConfigError, match="or a directory to spill to"):
        counter.add(texts)


def full_disk(descriptor, mode):
    """What `os.fdopen` would give on a disk without space: writing fails as the kernel does it."""
    open(descriptor, mode).close()  # noqa: PTH123
    return Path("/dev/full").open(mode)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_full_disk_leaves_no_file_and_names_where_it_is(monkeypatch, tmp_path, texts, threads):
    monkeypatch.setattr(spill, "os", SimpleNamespace(fdopen=full_disk))
    counter = NgramCounter(NgramSpec(), occurrences=1, spill=tmp_path, threads=threads)
    with pytest.raises(OSError, match="no space left for counted n-grams") as caught:
        counter.add(texts)
    assert Path(caught.value.filename).parent == tmp_path
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_runs_are_merged_is_named_too(monkeypatch, tmp_path, texts):
    monkeypatch.setattr(merging, "SOURCE_BYTES", 900_000_000)
    counter = NgramCounter(NgramSpec(), occurrences=1, spill=tmp_path)
    counter.add(texts.slice(0, 200))
    before = set(tmp_path.iterdir())
    parts = counter.parts()
    monkeypatch.setattr(
        spill.Run, "write", classmethod(full_after_first(spill.Run.write.__func__, monkeypatch))
    )
    with pytest.raises(OSError, match="no space left") as caught:
        list(parts)
    assert Path(caught.value.filename).parent == tmp_path
    assert len(set(tmp_path.iterdir()) - before) == 1  # the last of what was counted


def full_after_first(write, monkeypatch):
    """`Run.write` that has space for one run."""

    def writing(cls, directory, parts):
        run = write(cls, directory, parts)
        monkeypatch.setattr(spill, "os", SimpleNamespace(fdopen=full_disk))
        return run

    return writing
