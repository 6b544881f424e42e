"""The teacher as an artifact, and what is wrong with a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.stages import Workshop
from helpers.tiny_bert import write_tiny_bert
from helpers.tiny_task import LABELS, WORDS
from transformers import AutoConfig

from sparsedistill.errors import ConfigError, TeacherError
from tasks.teacher import MODEL_DIRECTORY


def as_it_is(name: str) -> dict[str, object]:
    """Settings that take a checkpoint over without training."""
    return {"checkpoint": name, "finetune": False}


def test_a_fine_tuned_teacher_has_the_tasks_labels_and_its_accuracy(workshop: Workshop):
    (teacher,) = workshop.make("teacher")["teacher"]
    config = AutoConfig.from_pretrained(teacher.directory() / MODEL_DIRECTORY)
    assert [config.id2label[i] for i in range(3)] == list(LABELS)
    assert teacher.statistics["labels"] == list(LABELS)
    assert teacher.statistics["dev_accuracy"] > 0.6
    assert teacher.statistics["float16_finite"] is True
    assert [t["learning_rate"] for t in teacher.statistics["trials"]] == [5e-3]
    assert teacher.statistics["trials"][0]["dev_accuracy"] == pytest.approx(
        teacher.statistics["dev_accuracy"]
    )


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
