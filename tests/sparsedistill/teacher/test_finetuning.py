"""Fine-tuning a tiny BERT on an easy task, offline."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.tiny_task import LABELS, texts
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight

from sparsedistill.class_weights import class_weights
from sparsedistill.errors import DataError, TeacherError
from sparsedistill.teacher import finetune, trial
from sparsedistill.teacher.checkpoint import load_model, resolve_checkpoint
from sparsedistill.teacher.finetune import FineTuning, LabelledTexts, fine_tune
from sparsedistill.teacher.labelling import LabellingOptions, Teacher

ROWS = texts(180, seed=4)
OPTIONS = FineTuning(
    epochs=5, batch_sizes=(16,), learning_rates=(2e-3,), seeds=(1,), max_length=512, warmup=0.1
)


def labelled(rows):
    return LabelledTexts([text for text, _ in rows], [LABELS.index(label) for _, label in rows])


def tuned(encoder, directory, options=OPTIONS, *, labels=LABELS, rows=ROWS[:120], **told):
    for name in ("scratch", "model"):
        (directory / name).mkdir(parents=True)
    trials = fine_tune(
        resolve_checkpoint(str(encoder)),
        train=labelled(rows), dev=labelled(ROWS[120:]), label_names=labels,
        options=options, output=directory / "model", scratch=directory / "scratch",
        threads=1, **told,
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


def test_only_a_model_and_its_tokenizer_are_there(once):
    _, model, _ = once
    names = {file.name for file in model.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_progress_is_in_updates_of_the_whole_grid(once):
    _, _, seen = once
    assert seen == [(update, 40) for update in range(1, 41)]


def test_the_best_point_of_the_grid_is_saved(tiny_encoder, tmp_path):
    # A rate of nearly nothing first: it learns nothing, so the second must be the one saved.
    options = FineTuning(epochs=5, batch_sizes=(16,), learning_rates=(1e-9, 2e-3), seeds=(1,))
    seen = []
    trials, model = tuned(
        tiny_encoder, tmp_path, options, progress=lambda *place: seen.append(place)
    )
    assert [trial.learning_rate for trial in trials] == [1e-9, 2e-3]
    assert trials[0].dev_accuracy < trials[1].dev_accuracy
    assert dev_accuracy(model) == pytest.approx(trials[1].dev_accuracy)
    assert seen[-1] == (80, 80)


def test_the_best_epoch_is_kept_and_not_the_last(tiny_encoder, tmp_path, monkeypatch):
    scores = iter([0.4, 0.9, 0.9, 0.5])
    weights = []
    save = trial.save_classifier

    def kept(tokenizer, model, directory):
        weights.append(model.classifier.weight.detach().clone())
        save(tokenizer, model, directory)

    monkeypatch.setattr(trial, "accuracy", lambda truth, predicted: next(scores))
    monkeypatch.setattr(trial, "save_classifier", kept)
    options = FineTuning(epochs=4, batch_sizes=(16,), learning_rates=(5e-3,))
    seen = []
    (only,), model = tuned(
        tiny_encoder, tmp_path, options, measured=lambda *told: seen.append(told)
    )
    assert (only.dev_accuracy, only.best_epoch) == (0.9, 2)
    assert len(weights) == 2
    assert torch.equal(load_model(model).classifier.weight, weights[1])
    assert seen == [
        ("batch 16, rate 0.005, seed 0", {"epoch": epoch, "dev_accuracy": score})
        for epoch, score in enumerate([0.4, 0.9, 0.9, 0.5], start=1)
    ]


def test_every_point_is_tried_with_every_seed_and_seeds_differ(tiny_encoder, tmp_path):
    options = FineTuning(
        epochs=1, batch_sizes=(16, 32), learning_rates=(2e-3,), seeds=(1, 2), max_length=32
    )
    trials, model = tuned(tiny_encoder, tmp_path, options)
    assert [(t.batch_size, t.seed) for t in trials] == [(16, 1), (16, 2), (32, 1), (32, 2)]
    assert dev_accuracy(model) == pytest.approx(max(t.dev_accuracy for t in trials))
    assert all(t.seconds > 0 and t.best_epoch == 1 for t in trials)
    alone, other = (
        tuned(
            tiny_encoder, tmp_path / str(seed), replace(options, batch_sizes=(16,), seeds=(seed,))
        )
        for seed in (1, 2)
    )
    weights = [load_model(found[1]).classifier.weight for found in (alone, other)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_weighted_loss_is_that_of_scikit_learn(classes):
    """A weighted mean of log losses; rows of rare labels count more."""
    generator = np.random.default_rng(classes)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, 40) // 2])
    logits = generator.normal(size=(len(labels), classes))
    weights = class_weights(labels, "balanced", classes=classes)
    found = trial._weighted(weights)({"logits": torch.tensor(logits)}, torch.tensor(labels))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    by_row = compute_sample_weight("balanced", labels)
    expected = log_loss(labels, probabilities, sample_weight=by_row, labels=np.arange(classes))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_class_weights_are_of_the_training_and_need_every_label(tiny_encoder, tmp_path):
    plain, weighted = (
        FineTuning(epochs=1, batch_sizes=(16,), learning_rates=(5e-3,), class_weights=how)
        for how in ("none", "balanced")
    )
    rows = [row for row in ROWS[:120] if row[1] != LABELS[0]]
    with pytest.raises(DataError, match="no row has label 0"):
        tuned(tiny_encoder, tmp_path / "lacking", weighted, rows=rows)
    rows += [row for row in ROWS[:120] if row[1] == LABELS[0]][:4]
    heads = [
        load_model(tuned(tiny_encoder, tmp_path / str(i), options, rows=rows)[1]).classifier.weight
        for i, options in enumerate((plain, weighted))
    ]
    assert not torch.equal(*heads)


def test_layers_by_onednn_give_the_same_values_and_gradients(tmp_path):
    """Of a size at which oneDNN is used, unlike the tiny teacher's."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 64)
    )
    values = torch.randn(3, 5, 64, requires_grad=True)

    def run():
        layers.zero_grad()
        values.grad = None
        out = layers(values)
        (out * out).sum().backward()
        return [out.detach(), values.grad.clone(), *(p.grad.clone() for p in layers.parameters())]

    expected = run()
    trial._use_onednn(layers)
    for found, right in zip(run(), expected, strict=True):
        assert torch.allclose(found, right, rtol=1e-4, atol=1e-4)


def test_the_attention_of_training_in_bfloat16_is_not_saved(tiny_encoder, tmp_path):
    options = FineTuning(
        epochs=1, batch_sizes=(16,), learning_rates=(2e-3,), dropout=0.1, precision="bfloat16"
    )
    assert finetune._attention(options, on_gpu=False) == {"attn_implementation": "eager"}
    assert finetune._attention(replace(options, dropout=0.0), on_gpu=False) == {}
    assert finetune._attention(replace(options, precision="float32"), on_gpu=False) == {}
    _, model = tuned(tiny_encoder, tmp_path, options)
    assert "eager" not in (model / "config.json").read_text()
    assert load_model(model).dtype == torch.float32


def test_the_order_of_rows_is_a_function_of_seed_and_epoch():
    lengths = [3 + i % 7 for i in range(50)]

    def order(seed, epoch):
        made = trial._Order(lengths, trial.Setting(8, 1e-3, seed))
        made.epoch = epoch
        torch.randperm(3)  # the process's own random state is no part of it
        return list(made)

    assert sorted(order(0, 0)) == list(range(50))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize(
    ("gpu", "bfloat16", "precision", "expected"),
    [
        (False, False, "float32", (False, False)),
        (False, False, "bfloat16", (True, False)),
        (False, False, "float16", (False, False)),
        (True, True, "float32", (True, False)),
        (True, False, "float32", (False, True)),
    ],
)
def test_mixed_precision_is_what_the_device_has(gpu, bfloat16, precision, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
    assert trial.mixed_precision(precision, on_gpu=gpu) == expected


def test_a_task_of_one_label_is_refused(tiny_encoder, tmp_path):
    with pytest.raises(TeacherError, match="two labels"):
        tuned(tiny_encoder, tmp_path, labels=["only"])
