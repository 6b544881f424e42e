"""Where a table starts: the teacher's embeddings by hand, an earlier student's rows by string."""

import numpy as np
import pytest
from helpers.random_bags import bags_of
from helpers.tiny_task import COMMON, TOPICS, WORDS
from hypothesis import given, settings
from hypothesis import strategies as st
from table_cases import TABLES, numbers

from sparsedistill.errors import DataError, TeacherError
from sparsedistill.students import DAN, DANShape
from sparsedistill.students.tokens import teacher_embeddings
from sparsedistill.teacher.checkpoint import load_tokenizer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.training import starts, table
from sparsedistill.training.row_types import from_bfloat16
from sparsedistill.training.starts import same_ngrams, start_from_student, start_from_teacher
from sparsedistill.training.table import CpuTable, TableOptions
from sparsedistill.vocabulary import Vocabulary

GARDEN, KITCHEN = TOPICS["garden"].split(), TOPICS["kitchen"].split()
PAIRS = [f"{one} {other}" for one in COMMON.split() for other in GARDEN]
NGRAMS = [*WORDS, *PAIRS]


def vocabulary_of(ngrams, tokenizer="word"):
    return Vocabulary.from_ngrams(NgramSpec(tokenizer), ngrams)


@pytest.fixture(scope="module")
def teacher(tiny_classifier):
    """Tokenizer and embeddings, of which those of special tokens would be noticed."""
    tokenizer, embeddings = load_tokenizer(tiny_classifier), teacher_embeddings(tiny_classifier)
    embeddings = embeddings.copy()
    embeddings[tokenizer.all_special_ids] = 1e6
    return tokenizer, embeddings


def started(teacher, ngrams=NGRAMS, *, width=32, scale=0.1, seed=0, kind="cpu", threads=1, **more):
    vocabulary = vocabulary_of(ngrams, **more)
    table = TABLES[kind](len(vocabulary), width, TableOptions())
    tokenizer, embeddings = teacher
    start_from_teacher(
        table, vocabulary, tokenizer=tokenizer, embeddings=embeddings, scale=scale, seed=seed,
        threads=threads,
    )  # fmt: skip
    return numbers(table)


def by_hand(teacher, ngrams=NGRAMS):
    """The centred mean embedding of each n-gram, [ngrams, teacher's width]."""
    tokenizer, embeddings = teacher
    means = []
    for ngram in ngrams:
        tokens = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(ngram))
        means.append(embeddings[tokens].astype(np.float64).mean(axis=0))
    return np.array(means) - np.mean(means, axis=0)


def test_distances_of_ngrams_are_those_of_their_mean_embeddings(teacher):
    found, expected = started(teacher), by_hand(teacher)
    expected *= 0.1 / expected.std()
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)
    assert found.std() == pytest.approx(0.1, rel=1e-4)


def test_a_narrower_table_has_the_first_principal_components_in_their_order(teacher):
    found, rows = started(teacher, width=5), by_hand(teacher)
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    expected = rows @ axes[:5].T
    expected *= 0.1 / np.sqrt(np.mean(expected.var(axis=0)))
    signs = np.sign(np.sum(found * expected, axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-5)
    assert (np.diff(found.std(axis=0)) < 0).all()


def test_a_wider_table_has_random_columns_beside_the_teachers(teacher):
    found = started(teacher, width=40)
    np.testing.assert_array_equal(found[:, :32], started(teacher))
    random = found[:, 32:]
    assert random.std() == pytest.approx(0.1, rel=0.1)
    assert abs(np.corrcoef(random.T) - np.eye(8)).max() < 0.3
    other = started(teacher, width=40, seed=1)
    np.testing.assert_array_equal(other[:, :32], found[:, :32])
    assert (other[:, 32:] != random).all()


def test_ngrams_of_the_same_words_start_alike_and_unknown_ones_in_the_middle(teacher):
    ngrams = [*NGRAMS, "rose tulip", "tulip rose", "東京", "東京 大阪"]
    found = started(teacher, ngrams)
    np.testing.assert_allclose(found[-4], found[-3], atol=1e-6)
    middle = (found[NGRAMS.index("rose")] + found[NGRAMS.index("tulip")]) / 2
    np.testing.assert_allclose(found[-4], middle, atol=1e-6)
    assert not found[-2:].any()


def test_characters_are_read_as_they_stand_in_a_text(teacher):
    """N-grams of characters have spaces between them that their texts have not."""
    tokenizer, embeddings = teacher
    found = started(teacher, ["r", "o", "s", "e", "r o s e"], tokenizer="character", width=4)
    rose = embeddings[tokenizer.convert_tokens_to_ids("rose")]
    letters = embeddings[tokenizer.convert_tokens_to_ids(list("rose"))]
    expected = np.array([*letters, rose]).astype(np.float64)
    expected -= expected.mean(axis=0)
    expected *= 0.1 / np.sqrt(np.square(expected).sum() / (5 * 4))
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)


def test_ngrams_are_read_as_words_that_follow_another():
    """To byte-level tokenizers the first word of a text is another token than the same word."""

    read = []

    class ByLength:
        all_special_ids = ()

        def __call__(self, texts, **_):
            read.extend(texts)
            return {"input_ids": [[len(text)] for text in texts]}

    started((ByLength(), np.random.default_rng(0).standard_normal((50, 4))), ["rose", "red rose"])
    assert set(read) == {" rose", " red rose"}


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_neither_threads_nor_blocks_nor_the_kind_of_table_change_a_row(teacher, monkeypatch, kind):
    expected = started(teacher)
    monkeypatch.setattr(table, "_BAGS_A_CALL", 7)
    for block, threads in ((16_384, 3), (50, 1), (50, 2)):
        monkeypatch.setattr(starts, "_BLOCK", block)
        np.testing.assert_array_equal(started(teacher, kind=kind, threads=threads), expected)


def test_rows_behind_the_most_frequent_are_turned_like_those(teacher, monkeypatch):
    monkeypatch.setattr(starts, "_FIT_ROWS", 60)
    found = started(teacher, width=8)
    np.testing.assert_array_equal(found[:60], started(teacher, NGRAMS[:60], width=8))
    assert found[:60].std() == pytest.approx(0.1, rel=1e-4)


def test_what_cannot_start_a_table_is_refused(teacher):
    tokenizer, embeddings = teacher
    with pytest.raises(TeacherError, match=r"tokenizer has a token .* not of one checkpoint"):
        started((tokenizer, embeddings[:40]))
    for wrong in (np.ones_like(embeddings), np.full_like(embeddings, np.nan)):
        with pytest.raises(TeacherError, match=r"do not tell .* apart, or are not finite"):
            started((tokenizer, wrong))
    with pytest.raises(TeacherError, match="apart"):
        started(teacher, ["東京", "大阪"])
    table = CpuTable(3, 4, TableOptions(), threads=1)
    with pytest.raises(DataError, match="a table of 3 rows, but a vocabulary of 2 n-grams"):
        start_from_teacher(
            table, vocabulary_of(["aa", "bb"]), tokenizer=tokenizer, embeddings=embeddings,
            scale=1.0, seed=0, threads=1,
        )  # fmt: skip


# From an earlier student.

ngram_lists = st.lists(
    st.lists(st.sampled_from(["tea", "mill", "東京", "ok"]), min_size=1, max_size=3).map(" ".join),
    unique=True,
    max_size=20,
)


@settings(deadline=None, max_examples=60)
@given(new=ngram_lists, old=ngram_lists)
def test_rows_are_matched_as_their_strings_are(new, old):
    expected = [old.index(ngram) if ngram in old else -1 for ngram in new]
    found = same_ngrams(vocabulary_of(new), vocabulary_of(old))
    assert found.dtype == np.int32
    assert found.tolist() == expected


def test_what_a_longer_ngram_begins_with_is_no_row():
    """The index knows it all the same, so that it can find the longer one."""
    assert same_ngrams(vocabulary_of(["big", "red"]), vocabulary_of(["big red"])).tolist() == [
        -1, -1,
    ]  # fmt: skip


def dan(rows, *, seed, hidden=3, layers=1, width=4, table_type="float32"):
    shape = DANShape(rows, width, hidden, 2, "relu", 0.5, layers=layers, table_type=table_type)
    return DAN(shape, seed=seed)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("old_kind", ["float32", "bfloat16"])
def test_known_rows_are_copied_and_the_others_stay_as_they_started(monkeypatch, kind, old_kind):
    monkeypatch.setattr(starts, "_BLOCK", 3)
    new_ngrams = ["cc", "new", "aa", "bb cc", "more", "other", "last"]
    old_ngrams = ["aa", "bb", "cc", "bb cc", "gone"]
    rows = same_ngrams(vocabulary_of(new_ngrams), vocabulary_of(old_ngrams))
    old, new = dan(5, seed=1, table_type=old_kind), dan(7, seed=2, table_type=kind)
    untouched = numbers(new.table)
    start_from_student(new, old.weights(), rows)
    found, before = numbers(new.table), numbers(old.table)
    if (kind, old_kind) == ("bfloat16", "float32"):
        before = from_bfloat16(dan(5, seed=1, table_type="bfloat16").weights()["table"])
    for row, ngram in enumerate(new_ngrams):
        known = ngram in old_ngrams
        expected = before[old_ngrams.index(ngram)] if known else untouched[row]
        np.testing.assert_array_equal(found[row], expected)


def test_dense_layers_of_the_same_shape_are_taken_over():
    old = dan(5, seed=1, layers=2).weights()
    rows = np.array([0, -1], np.int32)
    wider, deeper = dan(2, seed=2, hidden=6), dan(2, seed=2, layers=3)
    assert start_from_student(wider, old, rows) == ["head_bias"]
    taken = start_from_student(deeper, old, rows)
    assert [name for name in deeper.dense if name not in taken] == [
        "hidden_3_weight", "hidden_3_bias",
    ]  # fmt: skip
    for name in taken:
        np.testing.assert_array_equal(deeper.weights()[name], old[name])
    untouched = dan(2, seed=2, layers=3).weights()["hidden_3_weight"]
    np.testing.assert_array_equal(deeper.weights()["hidden_3_weight"], untouched)


def test_a_student_of_the_same_ngrams_in_another_order_says_the_same():
    old, new = dan(4, seed=1), dan(4, seed=2)
    rows = same_ngrams(
        vocabulary_of(["dd", "cc", "bb", "aa"]), vocabulary_of(["aa", "bb", "cc", "dd"])
    )
    start_from_student(new, old.weights(), rows)
    said = old.predict(bags_of([[0, 1], [3]]))
    np.testing.assert_allclose(new.predict(bags_of([[3, 2], [0]])), said, atol=1e-6)


def test_rows_of_another_width_or_number_are_refused():
    old = dan(5, seed=1, width=8).weights()
    with pytest.raises(DataError, match=r"\[2, 4\] cannot take 2 rows over from one of \[5, 8\]"):
        start_from_student(dan(2, seed=0), old, np.array([0, 1], np.int32))
    with pytest.raises(DataError, match=r"\[2, 8\] cannot take 3 rows"):
        start_from_student(dan(2, seed=0, width=8), old, np.zeros(3, np.int32))
