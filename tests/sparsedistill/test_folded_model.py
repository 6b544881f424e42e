import numpy as np
import pytest
from helpers.folded_cases import NGRAMS, TEXTS, formula, small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill import folded, fused
from sparsedistill.bags import Bags
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.folded import convert_table
from sparsedistill.text import oracle
from sparsedistill.text.buffers import TextBuffer, frozen

TYPES = ["float32", "float16", "int8"]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("table_type", TYPES)
@pytest.mark.parametrize("hidden", [1, 8, 37])
def test_logits_equal_the_matrix_formula(table_type, activation, hidden):
    model = small_model(activation=activation, hidden=hidden).converted(table_type)
    logits = model.logits(TextBuffer.from_strings(TEXTS))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, formula(model, TEXTS), rtol=1e-6, atol=1e-6)


def test_a_text_without_known_ngrams_has_the_zero_vector_for_its_mean():
    model = small_model()
    expected = model.head(model.hidden_bias[None]).astype(np.float32)
    logits = model.logits(TextBuffer.from_strings(["", "??"]))
    np.testing.assert_allclose(logits, [*expected] * 2, rtol=1e-6)


def test_only_the_first_max_ngrams_count():
    model = small_model(max_ngrams=1)
    logits = model.logits(TextBuffer.from_strings(["good bad", "good"]))
    np.testing.assert_array_equal(logits[0], logits[1])


@pytest.mark.parametrize("table_type", TYPES)
def test_a_texts_logits_depend_on_no_other_text_and_not_on_threads(table_type, monkeypatch):
    model = small_model().converted(table_type)
    texts = TextBuffer.from_strings(TEXTS * 20)
    together = model.logits(texts)
    alone = [model.logits(TextBuffer.from_strings([text]))[0] for text in TEXTS]
    np.testing.assert_array_equal(together, np.array(alone * 20))
    monkeypatch.setattr(folded, "BLOCK", 7)
    np.testing.assert_array_equal(model.logits(texts, threads=3), together)


def test_every_finite_float16_is_read_exactly():
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values)]
    table = frozen(values[None].view(np.uint16), np.uint16)
    sums, part = np.empty(len(values), np.float32), np.empty(len(values), np.float32)
    one = frozen(np.ones(1), np.float32)
    fused.add_rows(np.zeros(1, np.int32), 1, table, one, part, sums)
    np.testing.assert_array_equal(sums, values.astype(np.float32))


WORDS = [*NGRAMS, "unheard", "ÀB", "it's", "\ud7ff", "x"]


def narrowed(hidden):
    rng = np.random.default_rng(1)
    width = hidden // 2
    return {
        "table": rng.standard_normal((len(NGRAMS), width)).astype(np.float32),
        "projection": rng.standard_normal((width, hidden)),
    }


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=300).map(" ".join), max_size=8),
    st.sampled_from(TYPES),
    st.integers(1, 40),
    st.integers(1, 300),
    st.integers(1, 3),
    st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_the_fused_loop_computes_what_the_steps_say(
    texts, table_type, hidden, most, threads, narrow
):
    changes = narrowed(hidden) if narrow and hidden > 1 else {}
    model = small_model(hidden=hidden, max_ngrams=most, **changes).converted(table_type)
    buffer = TextBuffer.from_strings(texts)
    scores = model.run(buffer, threads=threads)
    bags = model.bags(buffer)
    expected = model.head(model.hidden_vectors(bags))
    np.testing.assert_allclose(scores.logits, expected, rtol=1e-6, atol=1e-6)
    assert scores.known.tolist() == np.diff(bags.offsets).tolist()
    np.testing.assert_array_equal(model.bag_logits(bags), scores.logits)
    for text, row in zip(texts, scores.logits, strict=True):
        np.testing.assert_array_equal(model.run_one(text.encode()), row)


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
def test_all_ngrams_of_a_text_are_counted_where_none_is_left_out(text):
    model = small_model()
    scores = model.run(TextBuffer.from_strings([text]))
    ngrams = oracle.ngrams(text, model.spec)
    assert scores.total.tolist() == [len(ngrams)]
    known = sum(ngram in NGRAMS for ngram in ngrams)
    assert scores.coverage[0] == np.float32(known / max(1, len(ngrams)))


def test_what_lies_behind_the_last_ngram_that_counts_is_not_looked_up():
    model = small_model(max_ngrams=2)
    scores = model.run(TextBuffer.from_strings(["good bad unheard of it all", "good unheard bad"]))
    # Of 1 to 4 tokens, from the first two tokens of the first text, from all three of the second.
    assert scores.total.tolist() == [8, 6]
    assert scores.known.tolist() == [2, 2]


@given(st.lists(st.floats(-10000, 10000, width=32), min_size=1, max_size=8), st.floats(1e-6, 1e3))
@settings(deadline=None)
def test_int8_is_off_by_half_a_step_at_most(row, factor):
    table = np.array([row, [0.0] * len(row)], np.float32) * np.float32(factor)
    quantised, scale = convert_table(table, "int8")
    error = np.abs(quantised * scale[:, None].astype(np.float64) - table)
    assert (error <= scale[:, None] * 0.5001 + 1e-30).all()


def test_converting_to_a_wider_type_changes_nothing():
    model = small_model().converted("int8")
    np.testing.assert_array_equal(
        model.converted("float32").logits(TextBuffer.from_strings(TEXTS)),
        small_model(table=model.rows(np.arange(len(NGRAMS)))).logits(
            TextBuffer.from_strings(TEXTS)
        ),
    )


@pytest.mark.parametrize(
    ("value", "table_type"), [(1e6, "float16"), (np.nan, "int8"), (np.inf, "float16")]
)
def test_a_table_that_does_not_fit_the_type_is_refused_by_row(value, table_type):
    table = np.zeros((4, 2), np.float32)
    table[2, 1] = value
    with pytest.raises(DataError, match="row 2"):
        convert_table(table, table_type)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": np.zeros((11, 37))}, "float64"),
        ({"table": np.zeros((11, 37), np.int8)}, "scale per row"),
        ({"scale": np.ones(11)}, "scale per row"),
        ({"table": np.zeros((10, 37), np.float32)}, "10 rows for 11 n-grams"),
        ({"projection": np.zeros((37, 37))}, "37 columns are not below 37"),
        ({"projection": np.zeros((37, 5))}, "37 columns are not below 5"),
        ({"projection": np.zeros(37)}, r"projection is float32\[width, hidden\], not \[37\]"),
        (
            {
                "projection": np.zeros((9, 90)),
                "hidden_bias": np.zeros(90),
                "head_weight": np.zeros((3, 90)),
            },
            r"projection must be \[37, 90\]",
        ),
        ({"table": np.zeros((11, 0), np.float32)}, "a column or more"),
        ({"hidden_bias": np.zeros(3)}, r"hidden_bias must be \[37\]"),
        ({"head_bias": np.full(3, np.nan)}, "head_bias has values that are not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        small_model(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ("a", "b", "a")},
        {"activation": "gelu"},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"max_ngrams": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(changes):
    with pytest.raises(ConfigError):
        small_model(**changes)


@pytest.mark.parametrize("row", [-1, 11, 2**30])
def test_bags_of_rows_that_are_not_there_are_refused(row):
    with pytest.raises(DataError, match="outside of the model's 11"):
        small_model().bag_logits(Bags(np.array([0, row]), np.array([0, 2])))
