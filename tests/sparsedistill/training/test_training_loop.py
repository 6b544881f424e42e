"""The loop: the earliest best kept, batches made ahead, what it tells, errors with their place."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from toy_runs import RECIPE, Killed, killed_after, ticking, trained
from toy_task import ToyStudent, toy_examples

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.targets import Targets
from sparsedistill.training.checkpoint import Checkpoints
from sparsedistill.training.loop import Checkpointing, Examples, fit
from sparsedistill.training.recipe import TrainingRecipe


class Scripted(ToyStudent):
    """A student whose accuracy on dev follows a script; its one weight is the update's number."""

    def __init__(self, right, *, explode_at=None):
        self.right, self.explode_at, self.value = right, explode_at, np.zeros(1, np.float32)

    def step(self, batch, targets, objective, *, update, learning_rate):
        self.value[0] = update
        return float("nan") if update == self.explode_at else 0.5

    def predict(self, inputs):
        right = self.right[int(self.value[0]) - 1]
        logits = np.zeros((len(inputs), 2), np.float32)
        logits[:, 0] = np.nan if right is None else np.where(np.arange(len(inputs)) < right, 1, -1)
        return logits

    def prepare(self, inputs, rows, *, update):
        return inputs[rows]

    def weights(self):
        return {"value": self.value}

    def load(self, arrays):
        self.value[...] = arrays["value"]


def scripted(right, *, patience=None, **options):
    examples = toy_examples(10, seed=0, labels=True)
    dev = Examples(examples.inputs, Targets(labels=np.zeros(10, np.int64)))
    student = Scripted(right, **options)
    recipe = TrainingRecipe(batch_size=10, learning_rate=1.0, updates=len(right), patience=patience)
    return student, lambda: fit(student, examples, None, recipe, dev=dev, seed=0)


def test_the_earliest_of_equally_good_moments_is_kept():
    student, run = scripted([3, 7, 5, 7, 6])
    result = run()
    assert (result.best_update, result.best_accuracy, student.value[0]) == (2, 0.7, 2)
    assert [point.dev_accuracy for point in result.points] == [0.3, 0.7, 0.5, 0.7, 0.6]
    assert (result.updates, result.stopped_early) == (5, False)


@pytest.mark.parametrize(
    ("patience", "updates", "best"), [(1, 3, 2), (2, 4, 2), (3, 5, 2), (4, 8, 6), (None, 8, 6)]
)
def test_a_run_ends_after_as_many_looks_in_vain_as_it_has_patience_for(patience, updates, best):
    student, run = scripted([3, 7, 5, 7, 6, 8, 1, 1], patience=patience)
    result = run()
    assert (result.updates, result.best_update, student.value[0]) == (updates, best, best)
    assert result.stopped_early == (updates < 8)


def test_the_last_update_is_looked_at_even_between_two_looks():
    _, result = trained(recipe=replace(RECIPE, epochs=None, updates=11))
    assert [point.update for point in result.points] == [3, 6, 9, 11]
    assert result.points[-1].epoch == 1.1


def test_dev_is_looked_at_once_an_epoch_where_nothing_else_is_said():
    _, result = trained(recipe=replace(RECIPE, evaluate_every=None))
    assert [(point.update, point.epoch) for point in result.points] == [(10, 1), (20, 2)]


def test_the_curve_has_the_mean_loss_since_the_last_point():
    _, sparse = trained(recipe=replace(RECIPE, evaluate_every=4))
    _, dense = trained(recipe=replace(RECIPE, evaluate_every=1))
    losses = [point.loss for point in dense.points]
    assert sparse.points[1].loss == pytest.approx(np.mean(losses[4:8]))


def test_the_curve_tells_the_speed_and_what_looking_and_saving_took(tmp_path, monkeypatch):
    # By this clock a second goes by whenever it is asked: once an update and a look, and twice
    # where a save is due, after every update.
    seen = []
    ticking(monkeypatch)
    trained(Checkpointing(tmp_path, every_seconds=0), watch=seen.append)
    # Three updates, a look and three saves take 10 seconds, 4 of them for what is no update.
    assert [point.examples_per_second for point in seen[1:3]] == [12 / 6] * 2
    assert [point.pauses for point in seen[1:3]] == [0.4] * 2


def test_a_watcher_hears_of_every_look_and_of_those_that_a_kill_undid_again(tmp_path):
    seen = []
    checkpointing = Checkpointing(tmp_path, every_seconds=0)
    with pytest.raises(Killed):
        trained(checkpointing, watch=seen.append, progress=killed_after(7))
    trained(checkpointing, watch=seen.append)
    assert [point.update for point in seen] == [3, 6, 9, 12, 15, 18, 20]


def test_progress_hears_of_every_update():
    seen = []
    trained(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 20) for done in range(1, 21)]


def test_training_learns_the_toy_task():
    _, result = trained(recipe=replace(RECIPE, epochs=30))
    assert result.best_accuracy > 0.8


def test_saving_is_no_more_than_a_tenth_of_the_time(tmp_path, monkeypatch):
    saved = []
    ticking(monkeypatch)
    monkeypatch.setattr(Checkpoints, "save", lambda _, student, state: saved.append(state.update))
    recipe = replace(RECIPE, epochs=None, updates=60)
    trained(Checkpointing(tmp_path, every_seconds=1), recipe=recipe)
    # By this clock every update and every save takes some seconds.
    assert saved
    assert len(saved) <= 60 * 4 / 9


class TestBatchesAreMadeAhead:
    def test_the_next_one_while_the_student_works_on_this_one(self):
        prepared = {update: threading.Event() for update in range(1, 21)}

        class Waiting(ToyStudent):
            def prepare(self, inputs, rows, *, update):
                assert threading.current_thread() is not threading.main_thread()
                prepared[update].set()
                return super().prepare(inputs, rows, update=update)

            def step(self, batch, targets, objective, *, update, learning_rate):
                assert prepared[min(update + 1, 20)].wait(10)
                assert update > 17 or not prepared[update + 3].is_set()
                return super().step(
                    batch, targets, objective, update=update, learning_rate=learning_rate
                )

        assert trained(student=Waiting()) == trained()

    def test_an_error_in_the_making_ends_the_run_before_its_update(self):
        class Failing(ToyStudent):
            def prepare(self, inputs, rows, *, update):
                if update == 4:
                    raise DataError("the features of example 7 are damaged")
                return super().prepare(inputs, rows, update=update)

        student, done = Failing(), []
        with pytest.raises(DataError, match="example 7"):
            trained(student=student, progress=lambda update, _: done.append(update))
        assert done == [1, 2, 3]
        assert student.optimiser_state()["step"] == 3
        assert threading.active_count() == self.threads

    def test_no_thread_is_left_where_a_run_ends_in_an_error(self):
        for update in (1, 4, 20):
            with pytest.raises(Killed) as error:
                trained(progress=killed_after(update))
            # While the error is looked at, too, with all that its traceback holds.
            assert (error.value, threading.active_count()) == (error.value, self.threads)
        trained(recipe=replace(RECIPE, evaluate_every=1, patience=1))
        assert threading.active_count() == self.threads

    @pytest.fixture(autouse=True)
    def _count_threads(self):
        self.threads = threading.active_count()


class TestErrors:
    def test_a_loss_that_is_not_finite_names_its_update(self):
        _, run = scripted([1, 1, 1], explode_at=2)
        with pytest.raises(DataError, match="loss at update 2 is nan"):
            run()

    def test_logits_on_dev_that_are_not_finite_name_the_update(self):
        # Otherwise the last update could overflow unseen: argmax of NaN is class 0, which may be
        # right.
        _, run = scripted([1, 1, None])
        with pytest.raises(DataError, match="after update 3"):
            run()

    def test_targets_that_are_not_finite_name_their_row(self):
        logits = np.zeros((4, 2), np.float32)
        logits[2, 1] = np.inf
        with pytest.raises(DataError, match="row 2"):
            Examples(toy_examples(4, seed=0).inputs, Targets(logits=logits))

    def test_inputs_and_targets_of_different_number_are_refused(self):
        examples = toy_examples(4, seed=0)
        few = Targets(logits=np.zeros((3, 2), np.float32))
        with pytest.raises(DataError, match="4 examples but 3 targets"):
            Examples(examples.inputs, few)
        with pytest.raises(DataError, match="no example"):
            Examples(examples.inputs[:0], Targets(logits=np.zeros((0, 2), np.float32)))

    @pytest.mark.parametrize(
        "targets",
        [Targets(logits=np.zeros((10, 2), np.float32)), Targets(labels=np.full(10, -1))],
        ids=["logits alone", "no label known"],
    )
    def test_dev_without_labels_is_refused(self, targets):
        examples = toy_examples(10, seed=0)
        dev = Examples(examples.inputs, targets)
        with pytest.raises(DataError, match="dev has no labels"):
            fit(ToyStudent(), examples, None, RECIPE, dev=dev, seed=0)

    def test_the_directory_of_another_run_is_refused(self, tmp_path):
        trained(Checkpointing(tmp_path, every_seconds=0))
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(ConfigError, match=r"another run.* batch_size, learning_rate;"):
            trained(
                Checkpointing(tmp_path, every_seconds=0),
                recipe=replace(RECIPE, batch_size=8, learning_rate=1.0),
            )
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_recipe_needs_patience_for_at_least_one_look(self):
        with pytest.raises(ConfigError, match="patience must be 1 or more"):
            replace(RECIPE, patience=0)


class TestAccuracyOnDev:
    def score(self, labels, logits):
        examples = toy_examples(len(labels), seed=0)

        class Fixed(ToyStudent):
            def predict(self, inputs):
                return np.array(logits, np.float32)

        dev = Examples(examples.inputs, Targets(labels=np.array(labels)))
        recipe = TrainingRecipe(batch_size=4, learning_rate=1.0, updates=1)
        return fit(Fixed(), examples, None, recipe, dev=dev, seed=0).best_accuracy

    def test_a_row_without_a_label_does_not_count(self):
        assert self.score([0, 1, -1, 1], [[1, 0], [0, 1], [1, 0], [1, 0]]) == 2 / 3

    def test_of_several_labels_a_row_all_must_be_right(self):
        labels = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [-1, -1, -1]]
        logits = [[1, -1, 2], [-1, -1, -2], [1, 1, -1], [1, 1, 1]]
        assert self.score(labels, logits) == 2 / 3
