"""Students that start from an earlier one: what they take over, and what their keys say."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import texts, write_lines
from safetensors.numpy import load_file

from flows.pipeline import Pipeline
from sparsedistill.errors import ConfigError
from storage import Artifact, Input
from tasks.earlier import ROLE, Earlier, origin_of
from tasks.stage import Job
from tasks.student_file import FILE
from tasks.vocabulary import read_vocabulary

# At a rate of next to nothing a student stays where it started.
STANDING = {"epochs": 1, "learning_rate": 1e-12, "scratch_epochs": 1}


def earlier_from(made: Mapping[str, list[Artifact]], **changes: Any) -> Earlier:
    """What a re-distillation would say of a run that made these."""
    student = next(one for one in made["student"] if one.statistics["variant"] == "kd")
    found = Earlier(
        package=Input("package", "0" * 32, "0" * 64),
        student=student.as_input(),
        vocabulary=made["vocabulary"][0].as_input(),
        train=made["dataset"][0].as_input(),
        labels=("garden", "kitchen", "railway"),
        width=8,
        origin=origin_of(student.manifest.recipe),
    )
    return replace(found, **changes)


def student_jobs(workshop: Workshop, earlier: Earlier | None, **tables: Any) -> list[Job]:
    made = workshop.make("logits", **tables) | workshop.make("features", **tables)
    steps = Pipeline(workshop.config(**tables), earlier).steps
    (step,) = [step for step in steps if step.name == "student"]
    return step.jobs(made)


def grow(workshop: Workshop) -> None:
    with (workshop.data / "corpus.txt").open("a") as file:
        file.writelines(f"{text}\n" for text, _ in texts(900, seed=3)[-150:])


def roles(job: Job) -> set[str]:
    return set(job.recipe.inputs)


def test_keys_without_an_earlier_student_are_what_they_always_were(stocked: Workshop):
    before = {artifact.key for artifact in stocked.make("student")["student"]}
    assert {job.recipe.key for job in student_jobs(stocked, None)} == before
    unused = earlier_from(stocked.make("student"), origin=None)
    grow(stocked)
    anew = [job.recipe.key for job in student_jobs(stocked, None)]
    assert [job.recipe.key for job in student_jobs(stocked, unused)] == anew


def epochs(jobs: list[Job]) -> dict[str, tuple[Any, Any]]:
    """By variant: as the recipe says, and as it is trained."""
    return {
        str(job.recipe.config["variant"]): (
            job.recipe.config["epochs"],
            job.runtime["config"]["epochs"],
        )
        for job in jobs
    }


def test_a_student_that_starts_from_the_earlier_one_has_epochs_of_its_own(stocked: Workshop):
    earlier = earlier_from(stocked.make("student"), epochs=1)
    same = {job.recipe.key for job in student_jobs(stocked, earlier)}
    assert same == {job.recipe.key for job in student_jobs(stocked, None)}
    grow(stocked)
    found = epochs(student_jobs(stocked, earlier))
    assert found["kd"] == (1, 1)
    usual = epochs(student_jobs(stocked, None))
    assert found == {**usual, "kd": (1, 1)}
    assert usual["kd"][0] > 1
    # One that cannot start from it is trained as any other.
    other = student_jobs(stocked, replace(earlier, labels=("a", "b")))
    assert epochs(other) == usual
    assert [job.recipe for job in other] == [job.recipe for job in student_jobs(stocked, None)]


def test_nothing_new_is_trained_where_the_earlier_one_had_such_a_start_itself(stocked: Workshop):
    first = earlier_from(stocked.make("student"), epochs=1)
    grow(stocked)
    (second,) = [
        job for job in student_jobs(stocked, first) if job.recipe.config["variant"] == "kd"
    ]
    later = replace(
        first, origin=origin_of(second.recipe), student=Input("student", "1" * 32, "1" * 64)
    )
    assert second.recipe in [job.recipe for job in student_jobs(stocked, later)]


def test_epochs_of_a_start_and_updates_exclude_each_other(stocked: Workshop):
    with pytest.raises(ConfigError, match=r"\[redistill\] epochs .* \[student\] updates"):
        stocked.config(student={"updates": 5, "epochs": None}, redistill={"epochs": 1})


def test_the_student_that_is_packaged_starts_from_the_earlier_one_and_no_other(stocked: Workshop):
    earlier = earlier_from(stocked.make("student"))
    grow(stocked)
    anew, started = student_jobs(stocked, None), student_jobs(stocked, earlier)
    assert [job.label for job in started] == [job.label for job in anew]
    for one, other in zip(started, anew, strict=True):
        if one.label == "kd seed 0":
            assert one.recipe.inputs[ROLE] == (earlier.student, earlier.vocabulary)
            assert one.recipe.key != other.recipe.key
        else:
            assert one.recipe == other.recipe


def test_rows_of_ngrams_that_both_know_and_the_layers_are_taken_over(stocked: Workshop):
    made = stocked.make("student")
    earlier = earlier_from(made)
    grow(stocked)
    (job,) = [j for j in student_jobs(stocked, earlier, student=STANDING) if ROLE in roles(j)]
    (step,) = [s for s in Pipeline(stocked.config()).steps if s.name == "student"]
    outcome = step.stage.run(job, stocked.store)
    new = stocked.store.get(outcome.kind, outcome.key)
    old = load_file(stocked.store.get("student", earlier.student.key).path(FILE))
    weights = load_file(new.path(FILE))
    (reference,) = job.recipe.inputs["vocabulary"]
    names = list(read_vocabulary(stocked.store.get("vocabulary", reference.key)).ngrams)
    old_row = {name: row for row, name in enumerate(read_vocabulary(made["vocabulary"][0]).ngrams)}
    taken = [row for row, name in enumerate(names) if name in old_row]
    assert 0 < len(taken) < len(names)
    expected = np.array([old["table"][old_row[names[row]]] for row in taken])
    np.testing.assert_allclose(weights["table"][taken], expected, atol=1e-9)
    others = [row for row in range(len(names)) if row not in set(taken)]
    assert np.abs(weights["table"][others]).max() > 0
    for name in ("hidden_weight", "head_bias"):
        np.testing.assert_allclose(weights[name], old[name], atol=1e-9)
    started: Any = new.statistics["started"]
    assert started["rows"] == len(taken)
    assert started["student"] == earlier.student.key


@pytest.mark.parametrize(
    ("changes", "tables", "why"),
    [
        ({"labels": ("garden", "kitchen")}, {}, "it has the labels garden, kitchen"),
        ({"labels": ("kitchen", "garden", "railway")}, {}, "it has the labels kitchen"),
        ({}, {"student": {"width": 16}}, "its table is 8 wide, .* width is 16"),
    ],
)
def test_where_it_does_not_fit_a_student_starts_as_any_other_and_says_so(
    stocked: Workshop,
    changes: dict[str, Any],
    tables: dict[str, Any],
    why: str,
    caplog: pytest.LogCaptureFixture,
):
    earlier = earlier_from(stocked.make("student"), **changes)
    grow(stocked)
    with caplog.at_level(logging.WARNING):
        started = student_jobs(stocked, earlier, **tables)
    assert [job.recipe for job in started] == [
        job.recipe for job in student_jobs(stocked, None, **tables)
    ]
    (told,) = [record.getMessage() for record in caplog.records if record.name == "tasks.earlier"]
    assert "does not start from the earlier" in told
    assert re.search(why, told)


def test_on_the_same_texts_the_earlier_student_is_the_new_one(stocked: Workshop):
    """A file of the corpus that was only touched must not cost a training."""
    made = stocked.make("student")
    earlier = earlier_from(made)
    before = {artifact.key for artifact in made["student"]}
    assert {job.recipe.key for job in student_jobs(stocked, earlier)} == before


def test_of_a_student_that_had_started_from_one_before_the_same_is_true(stocked: Workshop):
    earlier = earlier_from(stocked.make("student"))
    grow(stocked)
    (job,) = [one for one in student_jobs(stocked, earlier) if ROLE in roles(one)]
    (step,) = [s for s in Pipeline(stocked.config()).steps if s.name == "student"]
    step.stage.run(job, stocked.store)
    second = stocked.store.get("student", job.recipe.key)
    (reference,) = job.recipe.inputs["vocabulary"]
    vocabulary = stocked.store.get("vocabulary", reference.key)
    dataset = stocked.make("dataset")["dataset"]
    again = earlier_from({"student": [second], "vocabulary": [vocabulary], "dataset": dataset})
    assert again.student != earlier.student
    assert job.recipe.key in {one.recipe.key for one in student_jobs(stocked, again)}
    # With another seed it is one beside it: from the same start, not from itself.
    other = student_jobs(stocked, again, student={"seeds": [5]})
    (beside,) = [one for one in other if ROLE in roles(one)]
    assert beside.recipe.inputs[ROLE] == job.recipe.inputs[ROLE]
    changed = student_jobs(stocked, again, student={"epochs": 2})
    (anew,) = [one for one in changed if ROLE in roles(one)]
    assert anew.recipe.inputs[ROLE][0] == second.as_input()


def test_a_smaller_corpus_file_changes_nothing_of_the_rule(stocked: Workshop):
    earlier = earlier_from(stocked.make("student"))
    lines = (stocked.data / "corpus.txt").read_text().splitlines()
    write_lines(stocked.data / "corpus.txt", lines[:400])
    (job,) = [one for one in student_jobs(stocked, earlier) if ROLE in roles(one)]
    assert job.recipe.inputs[ROLE][0] == earlier.student
