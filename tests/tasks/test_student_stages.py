"""Students, their fine-tuning, the baseline: what is trained on what, and what is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import LABELS
from safetensors.numpy import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.metrics import accuracy
from storage import Artifact
from tasks import baseline, finetune, student
from tasks.features import read_features
from tasks.shards import read_shard
from tasks.stage import Job
from tasks.student_examples import taught_examples
from tasks.student_file import FILE, read_student

SMALL = {"student": {"baselines": []}, "baseline": {"enabled": False}}


def test_every_variant_and_seed_is_a_student_of_its_own(stocked: Workshop):
    jobs = stocked.jobs("student", student={"seeds": [0, 7]})
    assert [job.label for job in jobs] == [
        "scratch seed 0", "scratch seed 7", "kd_private seed 0", "kd_private seed 7",
        "kd seed 0", "kd seed 7",
    ]  # fmt: skip
    assert len({job.recipe.key for job in jobs}) == 6


def test_each_variant_sees_what_it_may_and_no_more(stocked: Workshop):
    """Privately distilled students must not see train, those from scratch no teacher."""
    made = stocked.make("student")
    train = {made["features"][3].key, made["logits"][3].key, made["dataset"][0].key}
    seen = {
        one.statistics["variant"]: {i.key for refs in one.manifest.inputs.values() for i in refs}
        for one in made["student"]
    }
    taught = {made["teacher"][0].key, *(one.key for one in made["logits"])}
    assert not seen["kd_private"] & train
    assert not seen["scratch"] & taught
    assert seen["kd"] >= {made["features"][3].key, made["logits"][3].key}
    test = {made["dataset"][2].key, made["features"][-1].key, made["logits"][-1].key}
    assert not any(keys & test for keys in seen.values())
    examples = {one.statistics["variant"]: one.statistics["examples"] for one in made["student"]}
    assert examples == {"scratch": 120, "kd_private": 600, "kd": 720}


def test_a_student_says_how_its_training_went(stocked: Workshop):
    kd = stocked.make("student")["student"][-1]
    statistics = kd.statistics
    assert statistics["updates"] == 4 * 12
    points = statistics["curve"]
    assert [point["epoch"] for point in points] == [1, 2, 3, 4]
    assert statistics["dev_accuracy"] == max(point["dev_accuracy"] for point in points)


def test_the_stored_student_is_the_best_on_dev(stocked: Workshop):
    made = stocked.make("student")
    kept = read_student(made["student"][-1].path(FILE))
    dev = read_shard(stocked.store, made["dataset"][1].as_input())
    _, bags = read_features(made["features"][-2])
    found = accuracy(dev.labels, kept.predict(bags).argmax(axis=1))
    assert found == pytest.approx(made["student"][-1].statistics["dev_accuracy"])


def test_the_same_student_whatever_the_shards_of_an_equal_corpus(stocked: Workshop):
    """Examples are read shard by shard; joining them must not depend on where they are cut."""
    files = []
    for rows in (200, 130):
        made = stocked.make("student", corpus={"rows_per_shard": rows}, **SMALL)
        files.append(made["student"][0].manifest.files)
    assert files[0] == files[1]


def test_fine_tuning_keeps_the_distilled_student_where_it_does_not_help(stocked: Workshop):
    settings = {**SMALL, "finetune": {"learning_rates": [1e-12], "epochs": 1}}
    made = stocked.make("finetune", **settings)
    distilled, finetuned = made["student"][0], made["finetune"][0]
    assert finetuned.statistics["helped"] is False
    assert finetuned.manifest.files == distilled.manifest.files
    assert finetuned.statistics["dev_accuracy"] == finetuned.statistics["dev_accuracy_before"]


def test_fine_tuning_is_kept_where_it_helps_on_dev(stocked: Workshop):
    weak = {"student": {"baselines": [], "epochs": 1, "learning_rate": 1e-5}}
    settings = {**weak, "finetune": {"learning_rates": [1e-2, 1e-5], "epochs": 5}}
    made = stocked.make("finetune", **settings)
    finetuned = made["finetune"][0]
    assert finetuned.statistics["helped"] is True
    assert finetuned.statistics["learning_rate"] == 1e-2
    assert finetuned.statistics["dev_accuracy"] > finetuned.statistics["dev_accuracy_before"]
    assert finetuned.manifest.files != made["student"][0].manifest.files


def test_fine_tuning_that_is_off_hands_the_student_on(stocked: Workshop):
    made = stocked.make("finetune", **SMALL, finetune={"enabled": False})
    assert made["finetune"][0].manifest.files == made["student"][0].manifest.files


def test_the_baseline_is_tfidf_and_logistic_regression_chosen_on_dev(stocked: Workshop):
    made = stocked.make("baseline", baseline={"strengths": [0.01, 4.0]})
    train, dev, test = (read_shard(stocked.store, one.as_input()) for one in made["dataset"])
    scores = {}
    for strength in (0.01, 4.0):
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        model = LogisticRegression(C=strength, max_iter=300)
        model.fit(vectorizer.fit_transform(list(train.texts)), train.labels)
        scores[strength] = accuracy(
            dev.labels, model.predict(vectorizer.transform(list(dev.texts)))
        )
    artifact = made["baseline"][0]
    assert artifact.statistics["strength"] == max(scores, key=lambda k: scores[k])
    assert artifact.statistics["dev_accuracy"] == max(scores.values())
    assert artifact.statistics["texts_per_second"] > 0
    predicted = load_file(artifact.path(baseline.FILE))["test"]
    assert set(np.unique(predicted)) <= set(range(len(LABELS)))
    assert accuracy(test.labels, predicted) > 0.5


def test_a_baseline_that_is_off_is_no_job(stocked: Workshop):
    assert stocked.jobs("baseline", baseline={"enabled": False}) == []


def test_logits_that_are_not_of_every_text_are_refused_where_a_teacher_labels(stocked: Workshop):
    made = stocked.make("student", **SMALL)
    kd = made["student"][-1].manifest
    parts = {role: list(kd.inputs[role]) for role in ("features", "logits")}
    # The logits of another shard: as many, but of other texts; then of train, which are fewer.
    for wrong in (parts["logits"][1], parts["logits"][-1]):
        with pytest.raises(
            DataError, match=r"shard 0 has features of 200 texts, but logits/.*made again"
        ):
            taught_examples(
                stocked.store,
                parts["features"],
                [wrong, *parts["logits"][1:]],
                vocabulary_rows=3000,
                whole=True,
            )


def test_given_logits_leave_out_what_they_do_not_cover(stocked: Workshop):
    made = stocked.make("student", **SMALL)
    kd = made["student"][-1].manifest
    logits = [kd.inputs["logits"][1], *kd.inputs["logits"][1:]]
    found = taught_examples(
        stocked.store, kd.inputs["features"], logits, vocabulary_rows=3000, whole=False
    )
    assert len(found.examples) == kd_examples(made) - 200
    assert found.chosen is None


def kd_examples(made: dict[str, list[Artifact]]) -> int:
    return int(str(made["student"][-1].statistics["examples"]))


def test_features_of_another_vocabulary_are_refused(stocked: Workshop):
    made = stocked.make("student", **SMALL)
    other = stocked.make("features", vocabulary={"size": 50}, **SMALL)
    (job,) = stocked.jobs("student", **SMALL)
    inputs = {**job.recipe.inputs, "vocabulary": (other["vocabulary"][0].as_input(),)}
    wrong = Job(replace(job.recipe, inputs=inputs), job.runtime)
    with pytest.raises(DataError, match="rows mean other n-grams"):
        student.STAGE.run(wrong, stocked.store)
    assert made["student"]


def test_a_student_that_does_not_fit_is_refused_by_its_stage_too(stocked: Workshop):
    (job,) = stocked.jobs("student", student={"baselines": [], "seeds": [5]})
    small = Job(job.recipe, {**job.runtime, "memory": 10**6})
    with pytest.raises(ConfigError, match="does not fit into 1MB"):
        student.STAGE.run(small, stocked.store)


def test_labels_and_class_weights_have_their_say(stocked: Workshop):
    plain = stocked.make("student", **SMALL)["student"][0]
    settings = {"baselines": [], "label_share": 0.5, "class_weights": "balanced"}
    mixed = stocked.make("student", student=settings)["student"][0]
    assert "train" in mixed.manifest.inputs
    assert mixed.manifest.files != plain.manifest.files


def test_fine_tuning_weighs_classes_as_the_student_does(stocked: Workshop):
    settings = {"finetune": {"learning_rates": [1e-2], "epochs": 2}}
    (plain,) = stocked.jobs("finetune", **SMALL, **settings)
    balanced = {"student": {"baselines": [], "class_weights": "balanced"}}
    (weighed,) = stocked.jobs("finetune", **{**SMALL, **balanced}, **settings)
    # The distilled student sees no label, so that it is the same; its fine-tuning is not.
    assert weighed.recipe.inputs == plain.recipe.inputs
    assert weighed.recipe.config["class_weights"] == "balanced"
    assert weighed.recipe.key != plain.recipe.key


def test_fine_tuning_leaves_no_checkpoints_behind_the_rates_that_are_done(stocked: Workshop):
    (job,) = stocked.jobs("finetune", **SMALL, finetune={"learning_rates": [1e-2, 1e-3]})
    seen = []
    work = stocked.store.workspace(job.recipe)

    def progress(_: float) -> None:
        seen.append([path.name for path in work.iterdir()])

    with stocked.store.create(job.recipe, tool_version="test") as writer:
        finetune.build(job, stocked.store, writer, progress)
    assert seen == [[], []]
