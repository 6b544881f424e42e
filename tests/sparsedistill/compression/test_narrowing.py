"""A narrower table: exact at full width, closest of its width below it, and saved as such."""

import numpy as np
import pytest
from compression_cases import HIDDEN, counted_vocabulary, labelled, model_of, texts

from sparsedistill.compression.held_out import HeldOut, Shape
from sparsedistill.compression.limits import Limits
from sparsedistill.compression.narrowing import Basis, widths
from sparsedistill.compression.pruning import prune, row_use
from sparsedistill.compression.recipe import Compression, compress
from sparsedistill.compression.steps import StepLog
from sparsedistill.errors import ConfigError
from sparsedistill.model_format import load_model, save_model


@pytest.fixture
def vocabulary():
    return counted_vocabulary()


@pytest.fixture
def model(vocabulary):
    return model_of(vocabulary)


@pytest.fixture
def basis(model, vocabulary):
    return Basis.of(model, row_use(vocabulary))


def flat_table(rows, rank):
    rng = np.random.default_rng(5)
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, HIDDEN))


def test_a_table_of_low_rank_is_narrowed_without_loss(vocabulary):
    low = model_of(vocabulary, table=flat_table(len(vocabulary), 3))
    narrow = Basis.of(low, row_use(vocabulary)).narrowed(low, 3)
    assert narrow.table.shape == (len(vocabulary), 3)
    assert narrow.projection.shape == (3, HIDDEN)
    np.testing.assert_allclose(narrow.logits(texts()), low.logits(texts()), atol=2e-5)


def test_the_own_width_is_the_model_itself(model, basis):
    assert basis.narrowed(model, HIDDEN) is model


def test_directions_are_orthonormal_and_the_most_important_first(basis):
    np.testing.assert_allclose(basis.directions.T @ basis.directions, np.eye(HIDDEN), atol=1e-5)
    assert (np.diff(basis.energy) <= 0).all()
    assert basis.energy.sum() == pytest.approx(1)


def test_no_other_directions_lose_less_of_the_rows_in_use(model, vocabulary, basis):
    use = row_use(vocabulary)
    rows = np.arange(len(vocabulary))
    lost = model.rows(rows) - basis.narrowed(model, 5).rows(rows)
    loss = (use * (lost**2).sum(axis=1)).sum()
    weighted = model.table * np.sqrt(use)[:, None]
    singular = np.linalg.svd(weighted.astype(np.float64), compute_uv=False)
    assert loss == pytest.approx((singular[5:] ** 2).sum(), rel=1e-4)


def test_a_large_table_is_narrowed_block_by_block(model, vocabulary, basis, monkeypatch):
    whole = basis.narrowed(model, 5)
    monkeypatch.setattr("sparsedistill.compression.narrowing._BLOCK_ROWS", 7)
    parts = Basis.of(model, row_use(vocabulary)).narrowed(model, 5)
    np.testing.assert_allclose(parts.logits(texts()), whole.logits(texts()), atol=1e-4)


@pytest.mark.parametrize("width", [0, HIDDEN + 1])
def test_a_width_that_cannot_be_is_refused(width, model, basis):
    with pytest.raises(ConfigError, match=f"12 columns cannot be made {width} wide"):
        basis.narrowed(model, width)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_narrow_model_is_saved_and_loaded(dtype, model, vocabulary, basis, tmp_path):
    narrow = basis.narrowed(model, 4).converted(dtype)
    save_model(tmp_path, narrow, vocabulary)
    loaded = load_model(tmp_path, verify=True)
    assert (loaded.width, loaded.hidden) == (4, HIDDEN)
    np.testing.assert_array_equal(loaded.logits(texts()), narrow.logits(texts()))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("keep", [20, 388])
def test_a_trial_is_as_really_narrowing(dtype, keep, model, vocabulary, basis):
    held_out = HeldOut(model, *labelled(model), basis=basis)
    ranking = np.arange(len(vocabulary))
    pruned, _ = prune(model, vocabulary, ranking, keep)
    made = basis.narrowed(pruned, 5).converted(dtype)
    tried = held_out.logits(ranking, keep, Shape(5, dtype))
    np.testing.assert_allclose(tried, made.logits(labelled(model)[0]), atol=1e-4)


def test_a_narrow_model_can_be_narrowed_again(model, vocabulary, basis):
    narrow = basis.narrowed(model, 8)
    again = Basis.of(narrow, row_use(vocabulary)).narrowed(narrow, 4)
    np.testing.assert_allclose(
        again.logits(texts()), basis.narrowed(model, 4).logits(texts()), atol=1e-3
    )
    assert widths(narrow) == [4, 8]


def test_a_width_that_is_asked_for_is_a_step_of_its_own(model, vocabulary):
    log = StepLog(*labelled(model))
    asked = Compression(dtype="int8", width=6, keep_share=0.5)
    made = compress(model, vocabulary, asked, log=log, measure=lambda *_: 0)
    assert [step.step for step in log.steps] == ["prune", "narrow", "quantise"]
    assert made.model.table.shape == (194, 6)


def test_a_search_finds_the_width_of_a_table_of_low_rank(vocabulary):
    low = model_of(vocabulary, table=flat_table(len(vocabulary), 3))
    basis = Basis.of(low, row_use(vocabulary))
    held_out = HeldOut(low, *labelled(low), basis=basis)
    asked = Compression(limits=Limits(max_bytes=14_000))
    made = compress(
        low, vocabulary, asked, log=StepLog(), measure=lambda *_: 0, held_out=held_out, basis=basis
    )
    assert made.model.width == 4
