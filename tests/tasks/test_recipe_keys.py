"""What decides an artifact and what does not: a stage's keys before and after one change.

A key that should have changed and did not hands out stale results; one that changed without need
computes everything again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.stages import Workshop

from storage import ArtifactStore

Tables = Mapping[str, Mapping[str, Any]]
STAGES = [
    "dataset", "corpus", "ngrams", "vocabulary", "features", "teacher", "logits", "baseline",
    "student", "finetune", "package", "evaluation", "report",
]  # fmt: skip


def cached(workshop: Workshop, stage: str, **tables: Mapping[str, Any]) -> bool:
    """Whether the store has all of a stage already, once what it needs is made."""
    recipes = [job.recipe for job in workshop.jobs(stage, **tables)]
    return all(found is not None for found in workshop.store.find_all(recipes))


@pytest.mark.parametrize(
    ("tables", "stage"),
    [
        ({"run": {"threads": 2, "workers": 3, "runner": "processes"}}, "report"),
        ({"corpus": {"expected_rows": 12}}, "report"),
        ({"logits": {"alignment_tolerance": 0.5, "max_quarantined_share": 0.5}}, "report"),
        ({"run": {"teacher_devices": ["cpu"]}}, "report"),
        ({"student": {"preset": "default"}}, "report"),
        ({"teacher": {"epochs": 4}}, "report"),
        ({"student": {"scratch_epochs": 4}}, "finetune"),
        ({"student": {"epochs": 5}}, "logits"),
        ({"student": {"epochs": 5}}, "features"),
        ({"student": {"epochs": 5}}, "baseline"),
        ({"teacher": {"epochs": 5}}, "features"),
        ({"vocabulary": {"size": 400}}, "logits"),
        ({"vocabulary": {"size": 400}}, "ngrams"),
        ({"package": {"dtype": "int8"}}, "finetune"),
        ({"evaluation": {"examples": 1}}, "package"),
        ({"finetune": {"epochs": 1}}, "student"),
    ],
    ids=str,
)
def test_what_cannot_change_a_stage_leaves_it_cached(stocked: Workshop, tables: Tables, stage: str):
    assert cached(stocked, stage, **tables)


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("dataset", {"labels": ["railway", "kitchen", "garden"]}),
        ("corpus", {"rows_per_shard": 150}),
        ("corpus", {"split_sentences": True}),
        ("corpus", {"max_rows": 100}),
        ("corpus", {"max_bad_share": 0.5}),
        ("ngrams", {"max_n": 3}),
        ("ngrams", {"tokenizer": "whitespace"}),
        ("vocabulary", {"size": 100}),
        ("vocabulary", {"min_count": 2}),
        ("vocabulary", {"train_weight": 2}),
        ("features", {"max_ngrams": 4}),
        ("teacher", {"epochs": 1}),
        ("teacher", {"learning_rates": [1e-3]}),
        ("teacher", {"max_length": 12}),
        ("teacher", {"seeds": [1]}),
        ("teacher", {"class_weights": "balanced"}),
        ("teacher", {"long_texts": "windows", "overlap": 2}),
        ("logits", {"dtype": "float32"}),
        ("logits", {"token_budget": 64}),
        ("logits", {"top_k": 2}),
        ("student", {"epochs": 1}),
        ("student", {"width": 4}),
        ("student", {"temperature": 7.0}),
        ("student", {"objective": "logits"}),
        ("student", {"feature_dropout": 0.0}),
        ("student", {"betas": [0.9, 0.98]}),
        ("student", {"init_scale": 0.2}),
        ("student", {"seeds": [3]}),
        ("finetune", {"batch_size": 8}),
        ("finetune", {"enabled": False}),
        ("package", {"dtype": "float16"}),
        ("package", {"keep_share": 0.5}),
        ("package", {"calibrate": False}),
        ("baseline", {"max_ngram": 1}),
        ("evaluation", {"examples": 1}),
    ],
    ids=str,
)
def test_what_can_change_a_stage_changes_its_keys(
    stocked: Workshop, stage: str, settings: Mapping[str, Any]
):
    assert not cached(stocked, stage, **{stage: settings})


def test_another_number_of_student_epochs_redoes_student_and_later_only(stocked: Workshop):
    """The second item of the issue's list; what is made is counted, not only what is wanted."""
    before = {stage: {m.key for m in stocked.store.artifacts(stage)} for stage in STAGES}
    stocked.make("report", student={"epochs": 2})
    changed = [
        stage
        for stage in STAGES
        if {m.key for m in stocked.store.artifacts(stage)} != before[stage]
    ]
    assert changed == ["student", "finetune", "package", "evaluation", "report"]


def test_another_way_to_the_same_bytes_changes_nothing_later(stocked: Workshop):
    """Shards of another size are counted anew, but the vocabulary they give is the same bytes."""
    made = stocked.make("features", corpus={"rows_per_shard": 600})
    again = stocked.make("features")
    assert made["vocabulary"][0].digest == again["vocabulary"][0].digest
    assert [one.key for one in made["features"][-3:]] == [one.key for one in again["features"][-3:]]


def test_files_that_were_moved_are_the_same_files(stocked: Workshop, tmp_path: Path):
    moved = Path(shutil.move(stocked.data, tmp_path / "elsewhere"))
    assert cached(Workshop(moved, Path(stocked.store.url)), "report")


def test_a_store_that_was_moved_is_the_same_store(stocked: Workshop, tmp_path: Path):
    moved = Path(shutil.move(stocked.store.url, tmp_path / "moved store"))
    assert cached(Workshop(stocked.data, moved), "report")


def test_a_touched_corpus_is_read_again_but_its_shards_are_known(stocked: Workshop):
    os.utime(stocked.data / "corpus.txt", (1, 1))
    assert not cached(stocked, "corpus")
    shards = {m.key: m.created for m in stocked.store.artifacts("corpus_shard")}
    assert cached(stocked, "evaluation")
    assert {m.key: m.created for m in stocked.store.artifacts("corpus_shard")} == shards


def test_a_new_row_of_train_keeps_the_corpus_and_its_counts(stocked: Workshop):
    with (stocked.data / "train.csv").open("a") as file:
        file.write("rose and soil again and again,garden\n")
    before = {m.key for m in stocked.store.artifacts("ngrams")}
    stocked.make("ngrams")
    assert len({m.key for m in stocked.store.artifacts("ngrams")} - before) == 1
    assert cached(stocked, "corpus")


def test_keys_do_not_depend_on_the_store(stocked: Workshop, tmp_path: Path):
    other = Workshop(stocked.data, tmp_path / "another")
    for stage in ("dataset", "corpus", "ngrams"):
        assert other.keys(stage) == stocked.keys(stage)
    assert ArtifactStore(tmp_path / "another").artifacts("student") == []
