"""The student of the paper, killed and resumed, with dropout, decay and clipping."""

from dataclasses import replace

import numpy as np
import pytest
from toy_runs import Killed, killed_after, ticking, timeless

from sparsedistill.bags import Bags
from sparsedistill.objectives import Soft
from sparsedistill.students.dan import DAN, DANShape, StudentTraining
from sparsedistill.targets import Targets
from sparsedistill.training.loop import Checkpointing, Examples, fit
from sparsedistill.training.recipe import TrainingRecipe

RECIPE = TrainingRecipe(
    batch_size=16, learning_rate=0.02, epochs=5, warmup=0.1, decay="linear", evaluate_every=4
)
KINDS = {
    "plain": {},
    "row-wise moment, bfloat16": {"second_moment": "row", "table_type": "bfloat16"},
}


def examples(count, *, seed, labels=False):
    """Two classes over 80 n-grams: low rows speak for class 0, high rows for class 1."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count)
    lengths = rng.integers(0, 5, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = rng.integers(0, 45, offsets[-1]) + 35 * np.repeat(truth, lengths)
    logits = np.stack([1 - 2 * truth, 2 * truth - 1], axis=1) * 2 + rng.normal(0, 0.1, (count, 2))
    targets = Targets(labels=truth) if labels else Targets(logits=logits.astype(np.float32))
    return Examples(Bags(rows, offsets), targets)


def trained(kind, checkpointing=None, progress=None, recipe=RECIPE):
    options = KINDS[kind]
    shape = DANShape(
        rows=80, width=6, hidden=5, classes=2, activation="relu", init_scale=0.1,
        table_type=options.get("table_type", "float32"),
    )  # fmt: skip
    training = StudentTraining(
        feature_dropout=0.2, dropout=0.2, weight_decay=0.01, table_decay=0.01, clip=0.5,
        second_moment=options.get("second_moment", "element"),
    )  # fmt: skip
    student = DAN(shape, training=training, seed=3)
    result = fit(
        student, examples(100, seed=0), Soft(2.0), recipe, dev=examples(80, seed=1, labels=True),
        seed=5, checkpointing=checkpointing, progress=progress,
    )  # fmt: skip
    weights = {name: value.tobytes() for name, value in student.weights().items()}
    return weights, replace(result, points=tuple(map(timeless, result.points)))


@pytest.fixture(scope="module")
def undisturbed():
    return {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every_seconds", [0, 12])
def test_killed_at_twenty_updates_it_ends_in_the_bytes_of_an_undisturbed_run(
    tmp_path, monkeypatch, undisturbed, kind, every_seconds
):
    ticking(monkeypatch)
    for kill in np.random.default_rng(7).integers(1, 36, 20).tolist():
        directory = tmp_path / str(kill)
        directory.mkdir(exist_ok=True)
        checkpointing = Checkpointing(directory, every_seconds)
        with pytest.raises(Killed):
            trained(kind, checkpointing, killed_after(kill))
        assert trained(kind, checkpointing) == undisturbed[kind]
        for path in directory.iterdir():
            path.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_the_task(kind):
    _, result = trained(kind, recipe=replace(RECIPE, epochs=40, evaluate_every=None))
    assert result.best_accuracy > 0.8
