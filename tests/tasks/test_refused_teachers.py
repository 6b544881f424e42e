"""A bad teacher ends a run before the corpus is touched; a good one that is made costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.bad_teachers import BAD
from helpers.stages import Workshop

from flows.inline import run_inline
from flows.plan import make_plan
from sparsedistill.errors import TeacherError
from sparsedistill.teacher import preflight
from tasks import teacher


@pytest.mark.parametrize("name", BAD)
def test_no_shard_of_the_corpus_is_made_for_a_bad_teacher(name: str, workshop: Workshop) -> None:
    bad = BAD[name]
    bad.write(workshop.data / "bad")
    config = workshop.config(teacher={**bad.settings, "checkpoint": "bad"})
    with pytest.raises(TeacherError) as refusal:
        run_inline(config)
    assert bad.says[0] in str(refusal.value)
    assert {made.kind for made in workshop.store.artifacts()} == {"dataset"}


def test_a_plan_notes_a_bad_teacher_and_shows_what_is_not_its_business(workshop: Workshop) -> None:
    bad = BAD["one label"]
    bad.write(workshop.data / "bad")
    config = workshop.config(teacher={**bad.settings, "checkpoint": "bad"})
    plan = make_plan(config, measure=True)
    assert any("one label only" in note for note in plan.notes)
    todo = {stage.stage: stage.todo for stage in plan.stages}
    good = {stage.stage: stage.todo for stage in make_plan(workshop.config()).stages}
    assert todo == good
    assert todo["corpus"] == todo["teacher"] == 1


def test_a_plan_does_not_fetch_the_teacher_to_look_at_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*_: object, **__: object) -> None:
        raise AssertionError("the checkpoint was loaded")

    monkeypatch.setattr(teacher, "check_teacher", look)
    assert make_plan(workshop.config()).notes == ()
    with pytest.raises(AssertionError, match="was loaded"):
        run_inline(workshop.config())


def test_a_teacher_that_is_made_is_not_asked_again(
    stocked: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    preflight._check.cache_clear()

    def load(*_: object, **__: object) -> None:
        raise AssertionError("the checkpoint was loaded")

    monkeypatch.setattr(preflight, "load_model", load)
    assert stocked.jobs("ngrams")
    with pytest.raises(AssertionError, match="was loaded"):
        stocked.jobs("ngrams", teacher={"epochs": 3})


def test_a_checkpoint_that_was_moved_is_named_before_the_corpus(
    workshop: Workshop, tmp_path: Path
) -> None:
    (workshop.data / "encoder").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"teacher\.checkpoint"):
        run_inline(workshop.config())
    assert {made.kind for made in workshop.store.artifacts()} == {"dataset"}
