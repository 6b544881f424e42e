"""The teacher as an artifact, and what is wrong with a checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers.stages import Workshop
from helpers.tiny_bert import write_tiny_bert
from helpers.tiny_task import LABELS, WORDS
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig

from sparsedistill.errors import ConfigError, TeacherError
from tasks.progress import listening
from tasks.teacher import MODEL_DIRECTORY


def as_it_is(name: str) -> dict[str, object]:
    """Settings that take a checkpoint over without training."""
    return {"checkpoint": name, "finetune": False}


def reordered(classifier: Path, directory: Path, labels: Sequence[str]) -> Path:
    """The classifier with its outputs in the opposite order, under these names."""
    shutil.copytree(classifier, directory)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = {str(i): name for i, name in enumerate(labels[::-1])}
    config["label2id"] = {name: i for i, name in enumerate(labels[::-1])}
    path.write_text(json.dumps(config))
    tensors = load_file(directory / "model.safetensors")
    turned = {n: t[::-1].copy() if "classifier" in n else t for n, t in tensors.items()}
    save_file(turned, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_a_fine_tuned_teacher_has_the_tasks_labels_and_its_accuracy(workshop: Workshop):
    (teacher,) = workshop.make("teacher")["teacher"]
    config = AutoConfig.from_pretrained(teacher.directory() / MODEL_DIRECTORY)
    assert [config.id2label[i] for i in range(3)] == list(LABELS)
    assert teacher.statistics["labels"] == list(LABELS)
    assert teacher.statistics["dev_accuracy"] > 0.6
    assert teacher.statistics["float16_finite"] is True
    assert [t["learning_rate"] for t in teacher.statistics["trials"]] == [2e-2]
    assert teacher.statistics["trials"][0]["dev_accuracy"] == pytest.approx(
        teacher.statistics["dev_accuracy"]
    )


def test_each_trial_is_told_of_in_the_manifest_and_while_it_runs(workshop: Workshop):
    told = []

    class Listener:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *a, **k: told.append(a) if name == "measured" else None

    settings = {"epochs": 2, "seeds": [4, 5], "class_weights": "balanced"}
    with listening(Listener()):
        (teacher,) = workshop.make("teacher", teacher=settings)["teacher"]
    trials = teacher.statistics["trials"]
    assert [(t["seed"], t["batch_size"], t["learning_rate"]) for t in trials] == [
        (4, 16, 2e-2),
        (5, 16, 2e-2),
    ]
    assert all(t["best_epoch"] in (1, 2) and t["seconds"] > 0 for t in trials)
    assert [(stage, label, figures["epoch"]) for stage, _, label, figures in told] == [
        ("teacher", f"batch 16, rate 0.02, seed {seed}", epoch)
        for seed in (4, 5)
        for epoch in (1, 2)
    ]
    best = max(figures["dev_accuracy"] for *_, figures in told)
    assert teacher.statistics["dev_accuracy"] == pytest.approx(best)


def test_no_path_of_this_machine_is_in_the_artifact(workshop: Workshop):
    (teacher,) = workshop.make("teacher")["teacher"]
    for name in teacher.names:
        content = teacher.path(name).read_bytes()
        assert str(workshop.data).encode() not in content, name
        assert str(workshop.store.url).encode() not in content, name


def test_the_same_training_gives_the_same_bytes(workshop: Workshop, tmp_path: Path):
    other = Workshop(workshop.data, tmp_path / "other")
    first, second = (w.make("teacher")["teacher"][0] for w in (workshop, other))
    assert first.manifest.files == second.manifest.files


def test_the_grid_is_tried_and_each_point_told(workshop: Workshop):
    grid = {"batch_sizes": [8, 16], "learning_rates": [1e-6, 5e-3], "epochs": 2}
    (teacher,) = workshop.make("teacher", teacher=grid)["teacher"]
    trials = [(t["batch_size"], t["learning_rate"]) for t in teacher.statistics["trials"]]
    assert trials == [(8, 1e-6), (8, 5e-3), (16, 1e-6), (16, 5e-3)]
    best = max(t["dev_accuracy"] for t in teacher.statistics["trials"])
    assert teacher.statistics["dev_accuracy"] == pytest.approx(best)


def test_a_finished_classifier_is_taken_as_it_is(workshop: Workshop, tiny_classifier: Path):
    """The privacy setting: train is no input, so its content cannot matter."""
    shutil.copytree(tiny_classifier, workshop.data / "finished")
    (teacher,) = workshop.make("teacher", teacher=as_it_is("finished"))["teacher"]
    assert "train" not in {role for role, refs in teacher.manifest.inputs.items() if refs}
    assert "trials" not in teacher.statistics
    weights = [n for n in teacher.names if n.endswith(".safetensors")]
    original = (tiny_classifier / "model.safetensors").read_bytes()
    assert [teacher.path(name).read_bytes() for name in weights] == [original]


def test_a_finished_classifier_with_other_labels_is_refused_with_both_sets(workshop: Workshop):
    write_tiny_bert(workshop.data / "other", WORDS, labels=("no", "perhaps", "yes"))
    with pytest.raises(TeacherError, match=r"teacher's labels are \['no', 'perhaps', 'yes'\]"):
        workshop.make("teacher", teacher=as_it_is("other"))
    assert workshop.store.artifacts("teacher") == []


def test_a_finished_classifier_with_the_labels_in_another_order_is_as_good(
    workshop: Workshop, tiny_classifier: Path
):
    shutil.copytree(tiny_classifier, workshop.data / "finished")
    (right,) = workshop.make("teacher", teacher=as_it_is("finished"))["teacher"]
    other = reordered(tiny_classifier, workshop.data / "other", LABELS)
    (teacher,) = workshop.make("teacher", teacher=as_it_is(other.name))["teacher"]
    assert teacher.statistics["dev_accuracy"] == right.statistics["dev_accuracy"]


def test_label_names_are_mapped_by_name_and_the_artifact_has_the_tasks(
    workshop: Workshop, tiny_classifier: Path
):
    shutil.copytree(tiny_classifier, workshop.data / "finished")
    (right,) = workshop.make("teacher", teacher=as_it_is("finished"))["teacher"]
    other = reordered(tiny_classifier, workshop.data / "other", [n.upper() for n in LABELS])
    settings = {**as_it_is(other.name), "label_names": {n.upper(): n for n in LABELS}}
    made = workshop.make("logits", teacher=settings)
    (teacher,) = made["teacher"]
    config = AutoConfig.from_pretrained(teacher.directory() / MODEL_DIRECTORY)
    assert [config.id2label[i] for i in range(3)] == list(LABELS[::-1])
    assert config.label2id == {name: i for i, name in config.id2label.items()}
    assert teacher.statistics["labels"] == list(LABELS)
    assert teacher.statistics["dev_accuracy"] == right.statistics["dev_accuracy"]


def test_label_names_beside_fine_tuning_are_an_error_of_the_configuration(workshop: Workshop):
    with pytest.raises(ConfigError, match=r"label_names is for .* set finetune = false"):
        workshop.config(teacher={"label_names": {"A": "garden"}})


def test_a_missing_checkpoint_is_refused_before_anything_is_computed(workshop: Workshop):
    with pytest.raises(ConfigError, match=r"teacher\.checkpoint: there is no directory 'encodre'"):
        workshop.make("teacher", teacher={"checkpoint": "encodre"})


def test_a_directory_without_a_model_is_refused(workshop: Workshop):
    (workshop.data / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty has no config\.json"):
        workshop.make("teacher", teacher={"checkpoint": "empty"})


def test_a_hub_name_that_cannot_be_asked_for_is_refused(workshop: Workshop):
    with pytest.raises(
        ConfigError, match="no directory 'someone/model', and the hub gave no model"
    ):
        workshop.make("teacher", teacher={"checkpoint": "someone/model"})


def test_a_checkpoint_that_cannot_be_read_says_so(workshop: Workshop):
    (workshop.data / "encoder" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(TeacherError, match="encoder"):
        workshop.make("teacher")
    assert workshop.store.artifacts("teacher") == []


def test_a_moved_checkpoint_is_the_same_teacher_and_a_changed_one_is_not(workshop: Workshop):
    before = workshop.keys("teacher")
    shutil.move(workshop.data / "encoder", workshop.data / "moved")
    assert workshop.keys("teacher", teacher={"checkpoint": "moved"}) == before
    path = workshop.data / "moved" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layer_norm_eps": 1e-6}))
    assert workshop.keys("teacher", teacher={"checkpoint": "moved"}) != before


def test_a_teacher_reads_what_it_can_where_no_length_is_given(workshop: Workshop):
    (teacher,) = workshop.make("teacher", teacher={"max_length": None, "epochs": 1})["teacher"]
    assert teacher.statistics["max_length"] == 64  # the positions that it has
