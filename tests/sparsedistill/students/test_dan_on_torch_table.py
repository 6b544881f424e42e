"""A DAN on the table that GPUs use, here in memory, learns what one on the kernels' table does."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers.random_bags import random_bags

from sparsedistill.errors import DataError
from sparsedistill.objectives import Soft
from sparsedistill.students import DAN, DANShape, StudentTraining
from sparsedistill.targets import Targets
from sparsedistill.training.torch_table import TorchTable

ROWS, WIDTH, HIDDEN, CLASSES = 60, 12, 10, 3
TRAINING = StudentTraining(
    feature_dropout=0.1, dropout=0.1, weight_decay=0.01, table_decay=0.01, clip=0.2
)


def both(*, training=TRAINING, **shape):
    shape = DANShape(ROWS, WIDTH, HIDDEN, CLASSES, "relu", init_scale=0.5, **shape)
    on_torch = partial(TorchTable, device="cpu")
    return DAN(shape, training=training), DAN(shape, training=training, table=on_torch)


def take_steps(student, first, last):
    losses = []
    for update in range(first, last + 1):
        rng = np.random.default_rng(update)
        bags = random_bags(rng, 20, ROWS)
        logits = rng.standard_normal((20, CLASSES)).astype(np.float32)
        losses.append(
            student.step(
                student.prepare(bags, np.arange(20), update=update),
                Targets(logits=logits),
                Soft(),
                update=update,
                learning_rate=0.01,
            )
        )
    return losses


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("second_moment", ["element", "row"])
def test_losses_weights_and_answers_are_those_of_the_kernels(pooling, second_moment):
    training = StudentTraining(clip=0.2, table_decay=0.01, second_moment=second_moment)
    kernels, torchs = both(training=training, pooling=pooling)
    np.testing.assert_allclose(take_steps(kernels, 1, 60), take_steps(torchs, 1, 60), atol=1e-4)
    for name, value in kernels.weights().items():
        np.testing.assert_allclose(torchs.weights()[name], value, atol=1e-4, err_msg=name)
    bags = random_bags(np.random.default_rng(0), 30, ROWS)
    np.testing.assert_allclose(torchs.predict(bags), kernels.predict(bags), atol=1e-3)
    np.testing.assert_array_equal(torchs.changed()["table"], kernels.changed()["table"])


@pytest.mark.parametrize("table_type", ["float32", "bfloat16"])
def test_a_run_goes_on_from_a_checkpoint_of_the_other_table(table_type):
    kernels, torchs = both(table_type=table_type)
    take_steps(kernels, 1, 20)
    torchs.load({**kernels.weights(), **kernels.optimiser_state()})
    for name, value in {**kernels.weights(), **kernels.optimiser_state()}.items():
        given = {**torchs.weights(), **torchs.optimiser_state()}[name]
        assert given.dtype == value.dtype
        np.testing.assert_array_equal(given, value, err_msg=name)
    expected, found = take_steps(kernels, 21, 40), take_steps(torchs, 21, 40)
    np.testing.assert_allclose(found, expected, atol=1e-4 if table_type == "float32" else 0.02)


def test_it_starts_from_given_weights_and_refuses_others():
    kernels, _ = both()
    on_torch = partial(TorchTable, device="cpu")
    twin = DAN(kernels.shape, weights=kernels.weights(), table=on_torch)
    bags = random_bags(np.random.default_rng(0), 9, ROWS)
    np.testing.assert_allclose(twin.predict(bags), kernels.predict(bags), atol=1e-5)
    before = twin.weights()["table"].copy()
    bad = {**kernels.weights(), "table.first_moment": np.zeros((2, 2), np.float32)}
    with pytest.raises(DataError, match=r"first_moment is float32 \[2, 2\], expected float32"):
        twin.load(bad)
    np.testing.assert_array_equal(twin.weights()["table"], before)


@pytest.mark.parametrize("table_type", ["float32", "bfloat16"])
def test_an_update_on_a_device_reads_nothing_back_but_the_loss(monkeypatch, table_type):
    # Torch's device without memory: numbers from two devices do not mix, and none can be read.
    read = []
    monkeypatch.setattr(torch.Tensor, "item", lambda value: float(read.append(value) or 1))
    shape = DANShape(ROWS, WIDTH, HIDDEN, CLASSES, "relu", 0.5, table_type=table_type)
    training = StudentTraining(
        feature_dropout=0.1, dropout=0.1, weight_decay=0.01, table_decay=0.01
    )
    student = DAN(shape, training=training, device="meta")
    assert take_steps(student, 1, 3) == [1.0] * 3
    assert len(read) == 3
    assert {value.device.type for value in student.dense.values()} == {"meta"}
    assert student.table.weights.device.type == "meta"
