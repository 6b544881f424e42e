"""Fine-tuning a tiny BERT on an easy task, offline."""

import hashlib

import numpy as np
import pytest
from helpers.tiny_task import LABELS, texts

from sparsedistill.errors import TeacherError
from sparsedistill.teacher import finetune
from sparsedistill.teacher.checkpoint import resolve_checkpoint
from sparsedistill.teacher.finetune import FineTuning, LabelledTexts, fine_tune
from sparsedistill.teacher.labelling import LabellingOptions, Teacher

ROWS = texts(180, seed=4)
OPTIONS = FineTuning(
    epochs=5, batch_sizes=(16,), learning_rates=(5e-3,), max_length=512, warmup=0.1
)


def labelled(rows):
    return LabelledTexts([text for text, _ in rows], [LABELS.index(label) for _, label in rows])


def tuned(encoder, directory, options=OPTIONS, *, labels=LABELS, progress=None):
    (directory / "scratch").mkdir(parents=True)
    trials = fine_tune(
        resolve_checkpoint(str(encoder)),
        train=labelled(ROWS[:120]), dev=labelled(ROWS[120:]), label_names=labels,
        options=options, output=directory / "model", scratch=directory / "scratch",
        threads=1, progress=progress,
    )  # fmt: skip
    return trials, directory / "model"


def dev_accuracy(model):
    asked = Teacher(model, labels=LABELS, options=LabellingOptions())
    dev = labelled(ROWS[120:])
    return float(np.mean(asked.logits(dev.texts).argmax(axis=1) == dev.labels))


@pytest.fixture(scope="module")
def once(tiny_encoder, tmp_path_factory):
    seen = []
    directory = tmp_path_factory.mktemp("secret-place")
    trials, model = tuned(
        tiny_encoder, directory / "run", progress=lambda *place: seen.append(place)
    )
    return trials, model, seen


def test_an_easy_task_is_learnt_and_the_saved_model_is_as_good_as_is_said(once):
    trials, model, _ = once
    assert trials[0].dev_accuracy > 0.8
    assert dev_accuracy(model) == pytest.approx(trials[0].dev_accuracy)


def test_the_same_run_gives_the_same_bytes(once, tiny_encoder, tmp_path, capfd):
    _, model, _ = once
    _, again = tuned(tiny_encoder, tmp_path / "again")
    assert capfd.readouterr() == ("", "")  # and nothing on the terminal

    def sums(directory):
        return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in directory.iterdir()}

    assert "model.safetensors" in sums(model)
    assert sums(model) == sums(again)


def test_no_file_holds_a_path_of_the_machine(once, tiny_encoder):
    _, model, _ = once
    for file in model.iterdir():
        content = file.read_bytes()
        assert b"secret-place" not in content, file.name
        assert str(tiny_encoder.parent).encode() not in content, file.name


def test_only_a_model_and_its_tokenizer_are_left(once):
    _, model, _ = once
    names = {file.name for file in model.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert list((model.parent / "scratch").iterdir()) == []


def test_progress_is_in_updates_of_the_whole_grid(once):
    _, _, seen = once
    assert seen == [(update, 40) for update in range(1, 41)]


def test_the_best_point_of_the_grid_is_saved(tiny_encoder, tmp_path):
    # A rate of nearly nothing first: it learns nothing, so the second must be the one saved.
    options = FineTuning(epochs=5, batch_sizes=(16,), learning_rates=(1e-9, 5e-3))
    seen = []
    trials, model = tuned(
        tiny_encoder, tmp_path, options, progress=lambda *place: seen.append(place)
    )
    assert [trial.learning_rate for trial in trials] == [1e-9, 5e-3]
    assert trials[0].dev_accuracy < trials[1].dev_accuracy
    assert dev_accuracy(model) == pytest.approx(trials[1].dev_accuracy)
    assert seen[-1] == (80, 80)


def test_the_best_epoch_is_kept_and_not_the_last(tiny_encoder, tmp_path, monkeypatch):
    scores = iter([0.4, 0.9, 0.9, 0.5])
    weights = []

    def scripted(truth, predicted):
        return next(scores)

    def save(tokenizer, model, directory):
        weights.append(model.classifier.weight.detach().clone())

    monkeypatch.setattr(finetune, "accuracy", scripted)
    monkeypatch.setattr(finetune, "save_classifier", save)
    options = FineTuning(epochs=4, batch_sizes=(16,), learning_rates=(5e-3,))
    trials, _ = tuned(tiny_encoder, tmp_path, options)
    assert trials[0].dev_accuracy == 0.9
    assert len(weights) == 1


def test_a_task_of_one_label_is_refused(tiny_encoder, tmp_path):
    with pytest.raises(TeacherError, match="two labels"):
        tuned(tiny_encoder, tmp_path, labels=["only"])
