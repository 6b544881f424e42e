"""Under a limit: what is found keeps it; of what cannot be kept, the nearest is said."""

import numpy as np
import pytest
from compression_cases import counted_vocabulary, labelled, model_of, texts, without_counts
from hypothesis import given
from hypothesis import strategies as st

from sparsedistill.compression.held_out import HeldOut, Shape
from sparsedistill.compression.limits import AccuracyFloor, Limits
from sparsedistill.compression.narrowing import Basis
from sparsedistill.compression.pruning import Rankings, prune, row_use
from sparsedistill.compression.recipe import Compression, compress
from sparsedistill.compression.sizes import SizeEstimate, model_bytes, saved_bytes
from sparsedistill.compression.steps import StepLog
from sparsedistill.errors import ConfigError
from sparsedistill.model_format import save_model


@pytest.fixture
def measure(tmp_path):
    def saved(model, vocabulary):
        save_model(tmp_path / "model", model, vocabulary)
        return saved_bytes(tmp_path / "model")

    return saved


def under(measure, *, held_out=True, model=None, vocabulary=None, **asked):
    vocabulary = vocabulary or counted_vocabulary()
    model = model or model_of(vocabulary)
    basis = Basis.of(model, row_use(vocabulary))
    tried_on = HeldOut(model, *labelled(model), basis=basis) if held_out else None
    return compress(
        model, vocabulary, Compression(**asked), log=StepLog(), measure=measure, held_out=tried_on,
        basis=basis,
    )  # fmt: skip


def score(model):
    found, truth = labelled(model_of(counted_vocabulary()))
    return np.mean(model.logits(found).argmax(axis=1) == truth)


@pytest.mark.parametrize("keep", [1, 17, 130, 388])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("width", [3, 12])
def test_the_size_of_a_model_is_known_before_it_is_saved(keep, dtype, width, measure):
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    model = Basis.of(model, row_use(vocabulary)).narrowed(model, width)
    model, kept = prune(model, vocabulary, np.arange(len(vocabulary))[::-1], keep)
    real = measure(model.converted(dtype), kept)
    assert real == pytest.approx(model_bytes(model.converted(dtype), kept), abs=1200)


def test_everything_that_a_saved_model_is_counts_and_nothing_else(tmp_path):
    vocabulary = counted_vocabulary()
    save_model(tmp_path, model_of(vocabulary), vocabulary)
    real = sum(file.stat().st_size for file in tmp_path.iterdir())
    (tmp_path / "README.md").write_text("a card")
    assert saved_bytes(tmp_path) == real


@given(
    limit=st.integers(0, 60_000),
    dtype=st.sampled_from(["float32", "float16", "int8"]),
    width=st.integers(1, 12),
)
def test_the_most_rows_below_a_size_fit_and_one_more_does_not(limit, dtype, width):
    size = SizeEstimate(rows=388, width=12, hidden=12, fixed=2300, string_bytes=2.4, bridges=0.13)
    shape = Shape(width, dtype)
    keep = size.largest(limit, shape)
    assert keep == 0 or size.bytes(keep, shape) <= limit
    assert keep == size.rows or size.bytes(keep + 1, shape) > limit


@pytest.mark.parametrize("limit", [4_000, 6_000, 8_192, 10_000, 14_000, 20_000, 30_000])
@pytest.mark.parametrize("held_out", [True, False])
def test_a_model_for_a_size_is_never_larger_and_uses_most_of_it(limit, held_out, measure):
    made = under(measure, held_out=held_out, limits=Limits(max_bytes=limit))
    real = measure(made.model, made.vocabulary)
    assert real <= limit
    assert real > 0.6 * limit  # slots come in powers of two


def test_a_size_is_kept_that_the_estimate_has_wrong(measure, monkeypatch):
    monkeypatch.setattr("sparsedistill.compression.sizes._HEADERS", -1500)
    made = under(measure, limits=Limits(max_bytes=9_000))
    assert measure(made.model, made.vocabulary) <= 9_000


def test_where_all_of_the_model_fits_no_accuracy_is_lost(measure):
    made = under(measure, limits=Limits(max_bytes=10**6))
    assert len(made.vocabulary) == 388
    assert score(made.model) >= 0.8


def test_of_the_forms_of_a_size_the_most_accurate_is_taken(measure):
    made = under(measure, limits=Limits(max_bytes=9_000))
    first = {form.shape: form for form in made.tried[:9]}
    types, columns = ("float32", "float16", "int8"), (4, 8, 12)
    assert set(first) == {Shape(width, dtype) for width in columns for dtype in types}
    assert first[made.model.width, made.model.table_type].score.accuracy == max(
        form.score.accuracy for form in first.values()
    )


@pytest.mark.parametrize("text", ["0.9x", "0.97x", "1x", "0.7"])
def test_the_smallest_model_of_an_accuracy_has_it(text, measure):
    floor = AccuracyFloor.parse(text)
    made = under(measure, limits=Limits(min_accuracy=floor))
    least = floor.value * (0.8 if floor.relative else 1)
    assert score(made.model) >= least - 1e-9
    enough = [form for form in made.tried if form.score.accuracy >= least - 1e-9]
    smallest = min(enough, key=lambda form: form.bytes)
    made_shape = Shape(made.model.width, made.model.table_type)
    assert (len(made.vocabulary), made_shape) == (smallest.keep, smallest.shape)


def test_a_smaller_accuracy_takes_no_larger_model(measure):
    sizes = []
    for text in ("0.6x", "0.8x", "0.95x", "1x"):
        made = under(measure, limits=Limits(min_accuracy=AccuracyFloor.parse(text)))
        sizes.append(model_bytes(made.model, made.vocabulary))
    assert sizes == sorted(sizes)


def test_both_limits_are_kept(measure):
    limits = Limits(16_000, AccuracyFloor.parse("0.9x"))
    made = under(measure, limits=limits)
    assert measure(made.model, made.vocabulary) <= 16_000
    assert score(made.model) >= 0.9 * 0.8


def test_limits_that_cannot_both_be_kept_are_refused_with_what_comes_nearest(measure):
    with pytest.raises(
        ConfigError, match=r"most accurate is [\d,]+ rows of .*accuracy 0\."
    ) as said:
        under(measure, limits=Limits(4_000, AccuracyFloor.parse("1x")))
    assert "the smallest of that accuracy is" in str(said.value)


def test_an_accuracy_that_nothing_has_is_refused_with_the_best_there_is(measure):
    with pytest.raises(ConfigError, match=r"accuracy 0.9500 .* nearest: .* accuracy 0\.8"):
        under(measure, limits=Limits(min_accuracy=AccuracyFloor.parse("0.95")))


def test_a_size_that_nothing_fits_is_refused_with_the_least_there_is(measure):
    with pytest.raises(ConfigError, match=r"fits into 100 bytes: one row alone takes about 2,"):
        under(measure, limits=Limits(max_bytes=100))


def test_without_held_out_texts_a_size_can_be_kept_but_no_accuracy(measure):
    with pytest.raises(ConfigError, match="takes held-out texts"):
        under(measure, held_out=False, limits=Limits(min_accuracy=AccuracyFloor(0.9, True)))
    made = under(measure, held_out=False, limits=Limits(max_bytes=10**6))
    assert (made.model.table_type, len(made.vocabulary)) == ("float32", 388)


def test_a_type_that_is_asked_for_is_the_only_one_tried(measure):
    made = under(measure, dtype="float16", limits=Limits(max_bytes=9_000))
    assert {form.shape.dtype for form in made.tried} == {"float16"}


def test_a_quantised_model_is_not_made_larger_again(measure):
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary, dtype="float16")
    made = under(measure, model=model, vocabulary=vocabulary, limits=Limits(max_bytes=9_000))
    assert {form.shape.dtype for form in made.tried} == {"float16", "int8"}


def test_a_model_without_counts_can_be_compressed(measure):
    vocabulary = without_counts(counted_vocabulary())
    made = under(measure, vocabulary=vocabulary, limits=Limits(max_bytes=9_000))
    assert measure(made.model, made.vocabulary) <= 9_000


@pytest.mark.parametrize("rule", ["contribution", "count", "order"])
def test_a_share_and_a_type_are_as_pruning_and_quantising(rule, measure):
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    made = under(measure, dtype="int8", keep_share=0.25, keep_by=rule)
    by_hand, kept = prune(model, vocabulary, Rankings(model, vocabulary)[rule], 97)
    np.testing.assert_array_equal(
        made.model.logits(texts()), by_hand.converted("int8").logits(texts())
    )
    assert list(made.vocabulary.ngrams) == list(kept.ngrams)


def test_nothing_asked_for_is_the_same_model_without_steps(measure):
    vocabulary = counted_vocabulary()
    model, log = model_of(vocabulary), StepLog()
    made = compress(model, vocabulary, Compression(), log=log, measure=measure)
    assert made.model is model
    assert (made.vocabulary is vocabulary, made.tried, log.steps) == (True, [], [])


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        Compression(keep_share=share)


def test_a_share_and_a_limit_contradict_each_other():
    with pytest.raises(ConfigError, match="give either the share"):
        Compression(keep_share=0.5, limits=Limits(max_bytes=1000))


@pytest.mark.parametrize(
    ("text", "value", "relative"),
    [("0.93", 0.93, False), (" 0.99x ", 0.99, True), (".5x", 0.5, True), (1, 1.0, False)],
)
def test_an_accuracy_is_as_such_or_a_share(text, value, relative):
    assert AccuracyFloor.parse(text) == AccuracyFloor(value, relative)


@pytest.mark.parametrize("text", ["", "x", "99", "93%", "0", "1.2x", "-0.5", "nan", "0.9xx"])
def test_what_is_no_accuracy_is_refused_with_what_would_be(text):
    with pytest.raises(ConfigError, match=r"write 0\.93, or 0\.99x"):
        AccuracyFloor.parse(text)
