"""The loop: resume to the same bytes, the earliest best kept, errors that name their place."""

from dataclasses import replace

import numpy as np
import pytest
from toy_task import toy_examples

from sparsedistill.errors import DataError
from sparsedistill.objectives import Hard, Soft
from sparsedistill.students import DAN, DANRegularisation, DANShape
from sparsedistill.training.checkpoint import load_checkpoint
from sparsedistill.training.loop import Checkpointing, Examples, fit
from sparsedistill.training.recipe import TrainingRecipe

RECIPE = TrainingRecipe(
    batch_size=16, learning_rate=0.02, epochs=4, warmup=0.1, decay="linear", evaluate_every=5
)


class Killed(Exception):
    pass


def new_student():
    return DAN(
        DANShape(rows=50, width=6, hidden=5, classes=2, activation="relu", init_scale=0.1),
        regularisation=DANRegularisation(feature_dropout=0.2, dropout=0.2, weight_decay=0.01),
        seed=3,
    )


def trained(checkpointing=None, *, recipe=RECIPE, progress=None, student=None):
    student = student or new_student()
    examples, dev = toy_examples(100, seed=0), toy_examples(40, seed=1, labels=True)
    result = fit(
        student, examples, Soft(2.0), recipe, dev=dev, seed=5,
        checkpointing=checkpointing, progress=progress,
    )  # fmt: skip
    weights = {name: value.tobytes() for name, value in student.weights().items()}
    points = tuple(replace(point, seconds=0.0) for point in result.points)
    return weights, replace(result, points=points)


def killed_after(update):
    def progress(done, total):
        if done == update:
            raise Killed

    return progress


@pytest.mark.parametrize("kills", [(1,), (5,), (7, 8), (13, 20, 27), (28,)])
def test_a_run_killed_at_any_update_ends_in_the_bytes_of_an_undisturbed_one(tmp_path, kills):
    undisturbed = trained()
    checkpointing = Checkpointing(tmp_path, every_seconds=0)
    for kill in kills:
        with pytest.raises(Killed):
            trained(checkpointing, progress=killed_after(kill))
        assert load_checkpoint(tmp_path)[0].update == kill
    assert trained(checkpointing) == undisturbed
    # Killed after the last update, before its artifact was published: nothing is trained again.
    assert trained(checkpointing, progress=killed_after(1)) == undisturbed


def test_how_often_a_run_is_saved_does_not_change_it(tmp_path):
    assert trained(Checkpointing(tmp_path, every_seconds=0)) == trained(Checkpointing(tmp_path))


def test_saving_is_no_more_than_a_tenth_of_the_time(tmp_path, monkeypatch):
    clock = iter(range(10_000))
    saved = []
    monkeypatch.setattr("sparsedistill.training.loop.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(
        "sparsedistill.training.loop.save_checkpoint",
        lambda directory, state, current, best: saved.append(state.update),
    )
    recipe = replace(RECIPE, epochs=None, updates=60)
    trained(Checkpointing(tmp_path, every_seconds=1), recipe=recipe)
    # By this clock every update and every save takes a second or two.
    assert saved
    assert len(saved) <= 60 * 2 / 9


def test_a_damaged_checkpoint_is_reported_and_the_run_begins_again(tmp_path, caplog):
    checkpointing = Checkpointing(tmp_path, every_seconds=0)
    with pytest.raises(Killed):
        trained(checkpointing, progress=killed_after(9))
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert trained(checkpointing) == trained()
    assert str(file) in caplog.text


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    (tmp_path / "checkpoint.tmp").write_bytes(b"half")
    assert load_checkpoint(tmp_path) is None
    assert trained(Checkpointing(tmp_path)) == trained()


def test_a_checkpoint_holds_state_current_and_best(tmp_path):
    with pytest.raises(Killed):
        trained(Checkpointing(tmp_path, every_seconds=0), progress=killed_after(11))
    state, current, best = load_checkpoint(tmp_path)
    assert (state.update, [point.update for point in state.points]) == (11, [5, 10])
    assert set(best) == set(new_student().weights())
    assert current["head_bias.step"].shape == ()
    assert float(current["head_bias.step"]) == 11


class Scripted:
    """A student whose accuracy on dev follows a script; its one weight is the update's number."""

    def __init__(self, right, *, explode_at=None):
        self.right, self.explode_at, self.value = right, explode_at, np.zeros(1, np.float32)

    def forward(self, bags, *, update):
        import torch

        fill = float("nan") if update == self.explode_at else 0.0
        return torch.full((len(bags), 2), fill, requires_grad=True)

    def update(self, update, learning_rate):
        self.value[0] = update

    def predict(self, bags):
        right = self.right[int(self.value[0]) - 1]
        logits = np.zeros((len(bags), 2), np.float32)
        logits[:, 0] = np.nan if right is None else np.where(np.arange(len(bags)) < right, 1, -1)
        return logits

    def weights(self):
        return {"value": self.value}

    def optimiser_state(self):
        return {}

    def load(self, arrays):
        self.value[...] = arrays["value"]


def scripted(right, **options):
    examples = toy_examples(10, seed=0, labels=True)
    dev = Examples(examples.bags, np.zeros(10, np.int64))
    student = Scripted(right, **options)
    recipe = TrainingRecipe(batch_size=10, learning_rate=1.0, updates=len(right))
    return student, lambda: fit(student, examples, Hard(), recipe, dev=dev, seed=0)


def test_the_earliest_of_equally_good_moments_is_kept():
    student, run = scripted([3, 7, 5, 7, 6])
    result = run()
    assert (result.best_update, result.best_accuracy, student.value[0]) == (2, 0.7, 2)
    assert [point.dev_accuracy for point in result.points] == [0.3, 0.7, 0.5, 0.7, 0.6]


def test_the_last_update_is_looked_at_even_between_two_looks():
    _, result = trained(recipe=replace(RECIPE, epochs=None, updates=12))
    assert [point.update for point in result.points] == [5, 10, 12]
    assert result.points[-1].epoch == 12 / 7


def test_the_curve_has_the_mean_loss_since_the_last_point():
    _, sparse = trained(recipe=replace(RECIPE, evaluate_every=4))
    _, dense = trained(recipe=replace(RECIPE, evaluate_every=1))
    losses = [point.loss for point in dense.points]
    assert sparse.points[1].loss == pytest.approx(np.mean(losses[4:8]))


def test_progress_hears_of_every_update():
    seen = []
    trained(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 28) for done in range(1, 29)]


def test_training_learns_the_toy_task():
    _, result = trained(recipe=replace(RECIPE, epochs=30))
    assert result.best_accuracy > 0.9


def test_a_loss_that_is_not_finite_names_its_update():
    _, run = scripted([1, 1, 1], explode_at=2)
    with pytest.raises(DataError, match="loss at update 2 is nan"):
        run()


def test_logits_on_dev_that_are_not_finite_name_the_update():
    # Otherwise the last update could overflow unseen: argmax of NaN is class 0, which may be right.
    _, run = scripted([1, 1, None])
    with pytest.raises(DataError, match="after update 3"):
        run()


def test_targets_that_are_not_finite_name_their_row():
    bags = toy_examples(4, seed=0).bags
    targets = np.zeros((4, 2), np.float32)
    targets[2, 1] = np.inf
    with pytest.raises(DataError, match="row 2"):
        Examples(bags, targets)


def test_bags_and_targets_of_different_number_are_refused():
    examples = toy_examples(4, seed=0)
    with pytest.raises(DataError, match="4 bags but 3 targets"):
        Examples(examples.bags, examples.targets[:3])
    with pytest.raises(DataError, match="no example"):
        Examples(examples.bags.take([]), examples.targets[:0])
