"""Students, their fine-tuning, the baseline: what is trained on what, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import LABELS
from safetensors.numpy import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from sparsedistill.metrics import accuracy
from tasks import baseline
from tasks.features import read_features
from tasks.shards import read_shard
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
    student = read_student(made["student"][-1].path(FILE))
    dev = read_shard(stocked.store, made["dataset"][1].as_input())
    _, bags = read_features(made["features"][-2])
    found = accuracy(dev.labels, student.predict(bags).argmax(axis=1))
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
    student, finetuned = made["student"][0], made["finetune"][0]
    assert finetuned.statistics["helped"] is False
    assert finetuned.manifest.files == student.manifest.files
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
