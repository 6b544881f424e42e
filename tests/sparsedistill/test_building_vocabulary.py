import json
import re
import tempfile
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram_cases import corpora, specs, vectorizer

import sparsedistill.coverage as coverage_module
from sparsedistill import building, spill
from sparsedistill.building import build_vocabulary
from sparsedistill.coverage import coverage, spread
from sparsedistill.errors import ConfigError
from sparsedistill.memory import format_size, parse_size
from sparsedistill.selection import pool_bytes
from sparsedistill.text import counting, oracle
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary


def total(corpus, spec):
    return Counter(ngram for text in corpus for ngram in oracle.ngrams(text, spec))


def ranked(counts, size, min_count=1):
    every = sorted(counts, key=lambda g: (-counts[g], g.count(" "), g.encode()))
    return [g for g in every if counts[g] >= min_count][:size]


@given(
    corpus=corpora,
    spec=specs,
    size=st.integers(1, 200),
    min_count=st.integers(1, 3),
    cut=st.integers(0, 8),
    threads=st.integers(1, 3),
)
@settings(deadline=None, max_examples=200)
def test_rows_and_counts_are_the_first_of_the_oracles_sorted_ngrams(
    corpus, spec, size, min_count, cut, threads
):
    texts = TextBuffer.from_strings(corpus)
    cut = min(cut, len(texts))
    parts = [texts.slice(0, cut), texts.slice(cut, len(texts))]
    vocabulary = build_vocabulary(parts, spec, size=size, min_count=min_count, threads=threads)
    counts = total(corpus, spec)
    expected = ranked(counts, size, min_count)
    assert list(vocabulary.ngrams) == expected
    assert vocabulary.counts.tolist() == [counts[ngram] for ngram in expected]
    assert vocabulary.spec == spec
    if spec.min_n == 1:
        # What an n-gram begins with is as frequent and shorter, so it has a row before it.
        rows = {ngram: row for row, ngram in enumerate(expected)}
        for ngram, row in rows.items():
            if " " in ngram:
                assert rows[ngram.rpartition(" ")[0]] < row
        assert vocabulary.index.bridges == 0


@given(corpora, specs, st.integers(1, 60))
@settings(deadline=None, max_examples=150)
def test_rows_are_those_of_count_vectorizer_but_for_ties_at_the_cut_off(corpus, spec, size):
    judge = vectorizer(spec, max_features=size)
    if not any(map(judge.build_analyzer(), corpus)):
        return
    sums = np.asarray(judge.fit_transform(corpus).sum(axis=0)).ravel().tolist()
    judged = dict(zip(judge.get_feature_names_out(), sums, strict=True))
    vocabulary = build_vocabulary([TextBuffer.from_strings(corpus)], spec, size=size)
    found = dict(zip(vocabulary.ngrams, vocabulary.counts.tolist(), strict=True))
    assert sorted(found.values()) == sorted(sums)
    cut_off = min(sums)
    assert {g for g in found.items() if g[1] > cut_off} == {
        g for g in judged.items() if g[1] > cut_off
    }


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(5)
    words = np.array([f"wort{i}" if i % 7 else f"ΣΑΣ{i}" for i in range(5000)])
    return [" ".join(words[rng.zipf(1.3, 60) % len(words)]) for _ in range(1500)]


@pytest.fixture
def runs(monkeypatch):
    """The runs that are written."""
    written = []
    write = spill.Run.write.__func__

    def writing(cls, directory, parts):
        run = write(cls, directory, parts)
        written.append(run.path)
        return run

    monkeypatch.setattr(spill.Run, "write", classmethod(writing))
    return written


@pytest.mark.parametrize("spec", [NgramSpec(), NgramSpec("whitespace", 2, 5)], ids=str)
def test_memory_threads_and_cuts_do_not_change_a_byte_of_what_is_saved(
    tmp_path, corpus, runs, spec
):
    texts = TextBuffer.from_strings(corpus)
    halves = [texts.slice(0, 700), texts.slice(700, len(texts))]
    saved = []
    for number, (parts, memory, threads) in enumerate(
        [([texts], "2GB", 1), ([texts], "2GB", 3), (halves, "8MB", 1), (halves, "11MB", 2)]
    ):
        before = len(runs)
        vocabulary = build_vocabulary(4 * parts, spec, size=20_000, memory=memory, threads=threads)
        assert (len(runs) > before) == (memory != "2GB")
        vocabulary.save(tmp_path / str(number))
        saved.append({p.name: p.read_bytes() for p in (tmp_path / str(number)).iterdir()})
    assert len(saved[0]) == 3
    assert all(files == saved[0] for files in saved[1:])
    counts = total(corpus, spec)
    assert list(vocabulary.ngrams) == ranked(counts, 20_000)
    assert not any(path.exists() for path in runs)


def test_nothing_is_left_on_the_disk_where_it_fills_up(monkeypatch, tmp_path, corpus):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def write(directory, parts):
        (directory / "begun").touch()
        raise OSError(28, "No space left on device", str(directory))

    monkeypatch.setattr(counting.Run, "write", write)
    with pytest.raises(OSError, match="No space left"):
        build_vocabulary(4 * [TextBuffer.from_strings(corpus)], NgramSpec(), size=10, memory="7MB")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_too_little_memory_names_what_is_enough(size):
    texts = [TextBuffer.from_strings(["the film was good"])]
    with pytest.raises(ConfigError, match="are the least") as caught:
        build_vocabulary(texts, NgramSpec(), size=size, memory="1MB")
    assert "1MB of memory are too little" in str(caught.value)
    enough = re.search(r"(\d+MB) are the least", str(caught.value))[1]
    assert len(build_vocabulary(texts, NgramSpec(), size=size, memory=enough)) == 10


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256MB", 256 * 10**6),
        ("1.5 GiB", 3 << 29),
        (" 7kib ", 7168),
        ("5 K", 5000),
        ("2T", 2 * 10**12),
        ("12", 12),
        (12, 12),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-5MB", "1,000MB", "1e3", "1.0.0", "5 PB", "5 M B"])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="write it as 256MB"):
        parse_size(text)


@given(st.integers(0, 10**13))
def test_a_size_as_it_is_shown_is_enough(size):
    assert size <= parse_size(format_size(size)) < size + 10**6


def test_the_memory_of_candidates_is_part_of_the_budget(monkeypatch):
    given_to = []

    class Spy(counting.NgramCounter):
        def __init__(self, spec, *, memory, **others):
            given_to.append(memory)
            super().__init__(spec, memory=memory, **others)

    monkeypatch.setattr(building, "NgramCounter", Spy)
    build_vocabulary([TextBuffer.from_strings(["aa"])], NgramSpec(), size=1000, memory="1GB")
    assert given_to == [10**9 - pool_bytes(1000)]


def test_texts_without_ngrams_give_a_vocabulary_without_rows():
    for parts in ([], [TextBuffer.from_strings([])], [TextBuffer.from_strings(["", "! a"])]):
        assert len(build_vocabulary(parts, NgramSpec(), size=5, threads=2)) == 0


def coverage_by_oracle(vocabulary, corpus, sizes):
    spec = vocabulary.spec
    rows = {ngram: row for row, ngram in enumerate(vocabulary.ngrams)}
    every = [oracle.ngrams(text, spec) for text in corpus]
    flat = [ngram for ngrams in every for ngram in ngrams]
    known = [ngram for ngram in flat if ngram in rows]
    per_text = [sum(ngram in rows for ngram in ngrams) for ngrams in every]
    p10, p50, p90 = np.percentile(per_text, (10, 50, 90)) if per_text else (0, 0, 0)
    orders = range(1, spec.max_n + 1)
    return {
        "occurrences": len(flat),
        "known": len(known),
        "occurrences_by_order": [sum(g.count(" ") + 1 == n for g in flat) for n in orders],
        "known_by_order": [sum(g.count(" ") + 1 == n for g in known) for n in orders],
        "out_of_vocabulary": 1 - len(known) / len(flat) if flat else 0,
        "by_size": [
            {"size": size, "share": sum(rows[g] < size for g in known) / max(1, len(flat))}
            for size in sizes
        ],
        "known_per_text": {
            "mean": sum(per_text) / len(per_text) if per_text else 0,
            "p10": p10,
            "p50": p50,
            "p90": p90,
        },
        "texts_without": per_text.count(0),
    }


@given(
    corpus=corpora,
    others=corpora,
    spec=specs,
    size=st.integers(1, 60),
    block=st.integers(1, 5),
    threads=st.integers(1, 2),
)
@settings(deadline=None, max_examples=100)
def test_coverage_is_what_plain_python_finds(corpus, others, spec, size, block, threads):
    vocabulary = build_vocabulary([TextBuffer.from_strings(corpus)], spec, size=size)
    texts = TextBuffer.from_strings(others + corpus[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage_module, "_SMALLEST", 3)
        patch.setattr(coverage_module, "_BLOCK", block)
        found = coverage(vocabulary, texts, threads=threads)
    steps = (3, 6, 15, 30, 60, 150)
    sizes = [step for step in steps if step < len(vocabulary)] + [len(vocabulary)]
    expected = coverage_by_oracle(vocabulary, list(texts), sizes)
    assert json.loads(json.dumps(found)).keys() == expected.keys()
    for name, value in expected.items():
        if name == "by_size":
            assert [each["size"] for each in found[name]] == sizes
            assert [each["share"] for each in found[name]] == pytest.approx(
                [each["share"] for each in value]
            )
        else:
            assert found[name] == pytest.approx(value), name


def test_coverage_keeps_to_the_vocabulary_also_where_it_has_holes():
    vocabulary = Vocabulary.from_ngrams(NgramSpec("word", 1, 3), ["good", "not very good"])
    corpus = ["not very good", "very good good", "bad", ""]
    found = coverage(vocabulary, TextBuffer.from_strings(corpus))
    assert found == coverage_by_oracle(vocabulary, corpus, [2])
    assert (found["known"], found["known_by_order"]) == (4, [3, 0, 1])


def test_coverage_of_nothing_or_by_nothing_is_zero():
    empty = Vocabulary.from_ngrams(NgramSpec(), [])
    some = Vocabulary.from_ngrams(NgramSpec(), ["aa"])
    for vocabulary, corpus in ((empty, ["aa bb"]), (some, []), (empty, []), (some, ["", "!"])):
        found = coverage(vocabulary, TextBuffer.from_strings(corpus))
        assert found["known"] == 0
        assert found["by_size"] == [{"size": len(vocabulary), "share": 0.0}]
        assert found["texts_without"] == len(corpus)
        assert found["out_of_vocabulary"] == (1.0 if corpus == ["aa bb"] else 0.0)
    assert spread([]) == {"mean": 0.0, "p10": 0.0, "p50": 0.0, "p90": 0.0}
    assert spread([1, 2, 3]) == pytest.approx({"mean": 2.0, "p10": 1.2, "p50": 2.0, "p90": 2.8})
