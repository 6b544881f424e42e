import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram_cases import corpora, specs

from sparsedistill.errors import DataError
from sparsedistill.text import oracle, recovery
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.recovery import ngram_strings, recover
from sparsedistill.text.strings import hash_strings


def hashes_of(ngrams):
    return np.array([oracle.ngram_hash(ngram) for ngram in ngrams], np.uint64)


def all_ngrams(corpus, spec):
    return sorted({ngram for text in corpus for ngram in oracle.ngrams(text, spec)})


@given(corpora, specs, st.randoms(use_true_random=False), st.integers(0, 100))
@settings(deadline=None, max_examples=200)
def test_strings_are_those_the_oracle_hashes_in_the_order_asked_for(corpus, spec, random, some):
    ngrams = all_ngrams(corpus, spec)
    random.shuffle(ngrams)
    ngrams = ngrams[: some or None]
    texts = TextBuffer.from_strings(corpus)
    assert list(ngram_strings(texts, spec, hashes_of(ngrams))) == ngrams


@given(
    corpus=corpora,
    spec=specs,
    threads=st.integers(1, 3),
    rows=st.integers(1, 5),
    cut=st.integers(0, 8),
    room=st.sampled_from([1, 16, 200, 1 << 20]),
)
@settings(deadline=None, max_examples=150)
def test_waves_threads_cuts_and_room_do_not_change_a_string(corpus, spec, threads, rows, cut, room):
    ngrams = all_ngrams(corpus, spec)
    texts = TextBuffer.from_strings(corpus)
    cut = min(cut, len(texts))
    parts = [texts.slice(0, cut), texts.slice(cut, len(texts))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "_FIRST_ROWS", rows)
        patch.setattr(recovery, "_MOST_ROWS", 2 * rows)
        patch.setattr(recovery, "_ROOM", room)
        entries, strings = recover(parts, spec, hashes_of(ngrams), threads=threads)
    assert [ngrams[entry] for entry in entries] == list(strings)
    assert sorted(entries.tolist()) == list(range(len(ngrams)))


def varied_corpus(rows):
    rng = np.random.default_rng(3)
    words = np.array([f"wort{i}" if i % 5 else f"ΣΑΣ{i}" for i in range(3000)])
    return [" ".join(words[rng.zipf(1.3, 30) % len(words)]) for _ in range(rows)]


def test_many_waves_in_threads_find_each_string_once(monkeypatch):
    corpus, spec = varied_corpus(600), NgramSpec("word", 1, 3)
    texts = TextBuffer.from_strings(corpus)
    ngrams = all_ngrams(corpus, spec)[::7]
    hashes = hashes_of(ngrams)
    results = []
    for threads in (1, 2, 3):
        for first, most in ((1024, 16384), (10, 40), (7, 7)):
            monkeypatch.setattr(recovery, "_FIRST_ROWS", first)
            monkeypatch.setattr(recovery, "_MOST_ROWS", most)
            entries, strings = recover([texts], spec, hashes, threads=threads)
            assert len(entries) == len(ngrams)
            results.append(list(strings.take(np.argsort(entries))))
    assert all(result == ngrams for result in results)


def test_texts_are_read_until_all_is_found_and_no_further():
    def parts():
        yield TextBuffer.from_strings(["aa bb"])
        yield TextBuffer.from_strings([])
        yield TextBuffer.from_strings(["cc"])
        pytest.fail("read on")

    _, strings = recover(parts(), NgramSpec(), hashes_of(["bb", "cc"]))
    assert sorted(strings) == ["bb", "cc"]


@pytest.mark.parametrize("threads", [1, 2])
def test_ngrams_longer_than_all_the_room_are_recovered(threads):
    long = ["x" * 1_500_000, "Ⱥ" * 400_000, "yy", "z" * 1_100_000]
    corpus = ["aa bb", " ".join(long), "cc"]
    spec = NgramSpec("word", 1, 3)
    ngrams = all_ngrams(corpus[::2], spec)
    words = [word.lower() for word in long]
    ngrams += [" ".join(words[a:b]) for a in range(4) for b in range(a + 1, min(a + 4, 5))]
    packed = TextBuffer.from_strings(ngrams)
    # The oracle takes seconds for megabytes; another test compares this kernel with it.
    hashes = hash_strings(packed)[0]
    entries, strings = recover([TextBuffer.from_strings(corpus)], spec, hashes, threads=threads)
    assert list(strings.take(np.argsort(entries))) == ngrams


def test_many_strings_that_fill_the_room_are_written_in_turns(monkeypatch):
    monkeypatch.setattr(recovery, "_ROOM", 64)
    corpus, spec = varied_corpus(20), NgramSpec()
    ngrams = all_ngrams(corpus, spec)
    texts = TextBuffer.from_strings(corpus)
    assert list(ngram_strings(texts, spec, hashes_of(ngrams))) == ngrams


def test_ngrams_shorter_than_the_spec_says_are_not_looked_for():
    texts = TextBuffer.from_strings(["aa bb cc"])
    spec = NgramSpec("word", 2, 3)
    assert list(ngram_strings(texts, spec, hashes_of(["bb cc", "aa bb cc"]))) == [
        "bb cc",
        "aa bb cc",
    ]
    with pytest.raises(DataError, match="1 of 2 n-grams"):
        ngram_strings(texts, spec, hashes_of(["bb", "aa bb"]))


@pytest.mark.parametrize("threads", [1, 2])
def test_what_the_texts_do_not_have_is_counted_and_named_by_hash(threads):
    texts = TextBuffer.from_strings(["aa bb", "cc"])
    wanted = hashes_of(["aa", "gone", "cc", "bb cc"])
    with pytest.raises(DataError, match=r"2 of 4 n-grams .* were the texts changed") as caught:
        recover([texts], NgramSpec(), wanted, threads=threads)
    assert f"{int(wanted[1]):#018x}" in str(caught.value)
    with pytest.raises(DataError, match="1 of 1"):
        recover([], NgramSpec(), wanted[:1], threads=threads)


def test_a_hash_asked_for_twice_is_refused():
    texts = TextBuffer.from_strings(["aa bb"])
    with pytest.raises(DataError, match="0 and 1"):
        recover([texts], NgramSpec(), hashes_of(["aa", "aa"]))


def test_nothing_asked_for_is_nothing_found():
    for texts in ([], [TextBuffer.from_strings(["aa"])]):
        entries, strings = recover(texts, NgramSpec(), hashes_of([]), threads=2)
        assert (len(entries), len(strings)) == (0, 0)
