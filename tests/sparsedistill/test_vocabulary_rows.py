import json

import numpy as np
import pytest

from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import ARRAYS_FILE, CONFIG_FILE, STRINGS_FILE, Vocabulary

NGRAMS = ["film", "the", "the film", "ein straßenbahnführer", "日本 語"]
SPEC = NgramSpec("whitespace", 1, 2)


@pytest.fixture
def vocabulary():
    return Vocabulary.from_ngrams(SPEC, NGRAMS, [9, 7, 5, 2, 1])


def test_rows_and_ngrams_find_each_other(vocabulary):
    assert len(vocabulary) == 5
    assert [vocabulary[row] for row in range(5)] == NGRAMS
    assert [vocabulary.find(ngram) for ngram in NGRAMS] == list(range(5))
    assert vocabulary.find("the The") is None
    assert vocabulary.find("ein") is None  # only begins one
    assert vocabulary.orders.tolist() == [1, 1, 2, 2, 2]


def test_some_rows_make_a_vocabulary_of_their_own(vocabulary):
    pruned = vocabulary.take(np.array([2, 0]))
    assert [pruned[0], pruned[1]] == ["the film", "film"]
    assert pruned.counts.tolist() == [5, 9]
    bags = pruned.bags(TextBuffer.from_strings(["the film"]))
    assert bags[0].tolist() == [0, 1]


def test_saving_and_loading_gives_it_back_and_saving_again_the_same_bytes(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "a")
    loaded = Vocabulary.load(tmp_path / "a")
    assert list(loaded.ngrams) == NGRAMS
    assert loaded.spec == SPEC
    for name in ("hashes", "counts", "train_counts", "orders"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(vocabulary, name))
    loaded.save(tmp_path / "b")
    for name in (CONFIG_FILE, ARRAYS_FILE, STRINGS_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
        [CONFIG_FILE, ARRAYS_FILE, STRINGS_FILE]
    )


def test_a_vocabulary_without_rows_can_be_saved_and_finds_nothing(tmp_path):
    Vocabulary.from_ngrams(SPEC, []).save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert len(loaded) == 0
    assert loaded.bags(TextBuffer.from_strings(["the film"]))[0].tolist() == []


def test_a_hash_that_is_not_the_strings_is_refused_by_row_and_string(vocabulary):
    hashes = vocabulary.hashes.copy()
    hashes[2] ^= np.uint64(1)
    with pytest.raises(DataError, match=r"row 2: .*'the film'"):
        Vocabulary(SPEC, vocabulary.ngrams, hashes, vocabulary.counts, vocabulary.counts)


def test_counts_of_another_length_and_ngrams_with_a_line_end_are_refused(vocabulary, tmp_path):
    with pytest.raises(DataError, match="counts has the shape"):
        Vocabulary(
            SPEC, vocabulary.ngrams, vocabulary.hashes, vocabulary.counts[1:], vocabulary.counts
        )
    with pytest.raises(DataError, match="n-gram 1 has a line end"):
        Vocabulary.from_ngrams(SPEC, ["a", "b\nc"]).save(tmp_path)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / CONFIG_FILE).unlink(), "vocabulary.json: cannot be read"),
        (lambda d: (d / CONFIG_FILE).write_text("{"), "vocabulary.json: not JSON"),
        (lambda d: edit(d / CONFIG_FILE, format=2), "newer"),
        (lambda d: edit(d / CONFIG_FILE, rows=6), r"vocabulary.safetensors: hashes is U64\[5\]"),
        (lambda d: edit(d / CONFIG_FILE, rows=True), "rows must be of type int"),
        (lambda d: edit(d / CONFIG_FILE, ngrams={}), "vocabulary.json: an n-gram spec"),
        (lambda d: edit(d / CONFIG_FILE, hash="md5"), "hash 'md5'"),
        (lambda d: (d / ARRAYS_FILE).write_bytes(b"\x08"), "not a whole safetensors file"),
        (lambda d: (d / ARRAYS_FILE).unlink(), "vocabulary.safetensors"),
        (lambda d: (d / STRINGS_FILE).write_bytes(b"film\n"), "ngrams.txt.zst: damaged"),
        (
            lambda d: (
                Vocabulary.from_ngrams(SPEC, NGRAMS[:4]).save(d / "o")
                or (d / "o" / STRINGS_FILE).rename(d / STRINGS_FILE)
            ),
            "ngrams.txt.zst: 4 whole lines, expected 5",
        ),
        (
            lambda d: (
                Vocabulary.from_ngrams(SPEC, NGRAMS[::-1]).save(d / "o")
                or (d / "o" / STRINGS_FILE).rename(d / STRINGS_FILE)
            ),
            "ngrams.txt.zst: row 0: the hash is not that of '日本 語'",
        ),
    ],
)
def test_a_damaged_file_is_named_with_the_reason(vocabulary, tmp_path, damage, message):
    vocabulary.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelFileError, match=message):
        Vocabulary.load(tmp_path)
