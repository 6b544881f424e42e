"""A plan shows what a run would do, and does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_task import ROWS_PER_SHARD, run_config, texts

from flows.config import DistillConfig, load_config, parse_config
from flows.inline import run_inline
from flows.plan import Plan, StagePlan, make_plan
from sparsedistill.errors import ConfigError
from storage import ArtifactStore

ROOT = Path(__file__).parents[2]
STAGES = [
    "dataset", "corpus", "ngrams", "vocabulary", "features", "teacher", "logits", "baseline",
    "student", "finetune", "package", "evaluation", "report",
]  # fmt: skip
MORE = [f"more and more {text}" for text, _ in texts(60, seed=9)]


def plan_of(data: Path, store: Path, **tables: Any) -> dict[str, StagePlan]:
    return by_stage(make_plan(parse_config(run_config(data, store, **tables))))


def by_stage(plan: Plan) -> dict[str, StagePlan]:
    return {stage.stage: stage for stage in plan.stages}


def listing(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in directory.rglob("*")
    }


def test_everything_is_to_do_in_an_empty_store(own_data: Path, tmp_path: Path):
    plan = make_plan(parse_config(run_config(own_data, tmp_path / "store")))
    assert [stage.stage for stage in plan.stages] == STAGES
    assert {stage.state for stage in plan.stages} == {"to do"}
    assert plan.notes == ()
    stages = by_stage(plan)
    assert stages["dataset"].todo == 3
    # Known by reading the sources: three shards and train, before the corpus is stored.
    assert stages["ngrams"].todo == 4
    assert stages["ngrams"].rows == 720
    assert stages["logits"].todo is None
    assert all(stage.memory for stage in plan.stages)


@pytest.mark.parametrize("state", ["empty", "whole", "grown"])
def test_a_plan_writes_nothing(own_data: Path, own_store: Path, tmp_path: Path, state: str):
    store = tmp_path / "fresh" if state == "empty" else own_store
    if state == "grown":
        append(own_data, MORE)
    before = listing(tmp_path)
    plan_of(own_data, store)
    assert listing(tmp_path) == before


def test_everything_is_cached_after_a_run(own_data: Path, own_store: Path):
    stages = plan_of(own_data, own_store)
    assert {stage.state for stage in stages.values()} == {"cached"}
    assert stages["logits"].cached == 6


def test_appended_lines_show_as_one_new_shard(own_data: Path, own_store: Path):
    append(own_data, MORE)
    stages = plan_of(own_data, own_store)
    shown = {
        name: (stages[name].cached, stages[name].todo)
        for name in ("dataset", "corpus", "teacher", "baseline", "ngrams", "logits")
    }
    assert shown == {
        "dataset": (3, 0),
        "corpus": (0, 1),
        "teacher": (1, 0),
        "baseline": (1, 0),
        "ngrams": (4, 1),
        "logits": (6, 1),
    }
    assert stages["logits"].state == "partly cached"
    # Not the mean of all jobs: the new shard is smaller than the others, and larger than dev.
    assert stages["logits"].rows == stages["ngrams"].rows == len(MORE)
    assert stages["vocabulary"].todo is None
    assert stages["student"].todo is None


def test_a_run_does_what_the_plan_said(own_data: Path, own_store: Path):
    append(own_data, MORE)
    stages = plan_of(own_data, own_store)
    result = run_inline(parse_config(run_config(own_data, own_store)))
    for name, outcomes in result.outcomes.items():
        made = sum(not outcome.cached for outcome in outcomes)
        if stages[name].todo is not None:
            assert made == stages[name].todo, name
            assert len(outcomes) - made == stages[name].cached, name
    assert {stage.state for stage in plan_of(own_data, own_store).values()} == {"cached"}


def test_another_number_of_student_epochs_is_student_and_later(own_data: Path, own_store: Path):
    stages = plan_of(own_data, own_store, student={"epochs": 9})
    todo = [name for name, stage in stages.items() if stage.state != "cached"]
    assert todo == ["student", "finetune", "package", "evaluation", "report"]
    # The baseline that sees no teacher does not train for student.epochs.
    assert (stages["student"].cached, stages["student"].todo) == (1, 2)


def test_times_are_projected_from_earlier_runs_in_the_store(own_data: Path, own_store: Path):
    append(own_data, MORE)
    stages = plan_of(own_data, own_store)
    assert stages["logits"].seconds is not None
    assert stages["logits"].seconds > 0
    assert stages["dataset"].seconds is None


def test_a_teacher_that_changes_shows_its_logits_as_unknown(own_data: Path, own_store: Path):
    stages = plan_of(own_data, own_store, teacher={"seeds": [5]})
    assert stages["teacher"].todo == 1
    assert stages["logits"].todo is None
    assert stages["features"].state == "cached"


def test_a_source_that_is_missing_is_a_note(own_data: Path, tmp_path: Path):
    config = run_config(own_data, tmp_path / "store", corpus={"sources": ["corpsu.txt"]})
    plan = make_plan(parse_config(config))
    assert len(plan.notes) == 1
    assert "corpsu.txt" in plan.notes[0]
    assert by_stage(plan)["ngrams"].todo is None


@pytest.mark.parametrize("name", ["sst2", "imdb", "trec", "ag_news", "wiki_toxic"])
def test_the_papers_settings_are_planned_offline_with_notes(name: str, tmp_path: Path):
    """What lies on the hub is out of reach here; the plan says so and goes on."""
    path = ROOT / "experiments" / "paper" / f"{name}.toml"
    # So much memory that the machine this runs on does not matter.
    overrides = [f"run.store={tmp_path / 'store'}", "run.student_memory=64GB"]
    config = load_config(path, overrides=overrides)
    plan = make_plan(config)
    assert [stage.stage for stage in plan.stages] == STAGES
    assert any("hf://" in note or "hub" in note for note in plan.notes)
    stages = by_stage(plan)
    # A table of 1M x 1000 in float32 and its two moments.
    assert stages["student"].memory >= 12_000_000_000
    assert stages["features"].rows >= config.corpus.expected_rows > 10**7
    assert stages["corpus"].disk > 10**9


def test_rows_per_shard_and_the_plan_agree(own_data: Path, tmp_path: Path):
    stages = plan_of(own_data, tmp_path / "store", corpus={"rows_per_shard": ROWS_PER_SHARD // 2})
    assert stages["ngrams"].todo == 7


def append(data: Path, lines: list[str]) -> None:
    with (data / "corpus.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


@pytest.mark.parametrize("start", [make_plan, run_inline])
def test_students_that_do_not_fit_are_refused_before_anything_is_done(
    own_data: Path, tmp_path: Path, start: Callable[[DistillConfig], object]
):
    config = parse_config(
        run_config(
            own_data,
            tmp_path / "store",
            vocabulary={"size": 1_000_000},
            student={"width": 1000},
            run={"student_memory": "11GB", "workers": 1},
        )
    )
    with pytest.raises(ConfigError, match=r'does not fit into 11000MB; .*table_type = "bfloat16"'):
        start(config)
    assert not list((tmp_path / "store").glob("*/*/manifest.json"))


def test_a_plan_says_what_students_need_by_the_vocabulary_there_is(
    own_data: Path, own_store: Path, tmp_path: Path
):
    seen = {
        store: plan_of(own_data, store, student={"width": 64, "hidden": 64})["student"].memory
        for store in (tmp_path / "empty", own_store)
    }
    rows = ArtifactStore(str(own_store)).artifacts("vocabulary")[0].statistics["rows"]
    saved = (seen[tmp_path / "empty"] or 0) - (seen[own_store] or 0)
    assert saved == pytest.approx((3000 - int(str(rows))) * 64 * 12, abs=1000)


@pytest.mark.parametrize(
    ("device", "message"),
    [("gpu", "'gpu' is no device that torch knows"), ("cuda:99", "there is no cuda:99 here")],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_done(
    own_data: Path, tmp_path: Path, device: str, message: str
):
    config = run_config(own_data, tmp_path / "store", run={"student_device": device})
    with pytest.raises(ConfigError, match=message):
        run_inline(parse_config(config))
    assert not list((tmp_path / "store").glob("*/*/manifest.json"))
