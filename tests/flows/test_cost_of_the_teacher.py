"""A plan measures the teacher before anything is spent on it, and only where it has work."""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_task import CORPUS_ROWS, ROWS, run_config, texts, write_lines, write_toml

from flows import corpus_sample, teacher_cost
from flows.cli import main
from flows.config import DistillConfig, parse_config
from flows.corpus_sample import spread, train_sample
from flows.inline import run_inline
from flows.plan import Plan, StagePlan, make_plan
from flows.teacher_cost import TRAINING, TeacherCost, local_checkpoint
from sparsedistill.errors import TeacherError
from sparsedistill.teacher import devices
from storage import ArtifactStore

COST = TeacherCost(
    devices=("cpu",), at_once=1, rows=100, seconds=2.0, tokens_per_row=20.0,
    train_tokens_per_row=10.0, bytes_per_row=9.5,
)  # fmt: skip
ALL_ROWS = CORPUS_ROWS + sum(ROWS.values())


def measured(config: DistillConfig) -> Plan:
    return make_plan(config, measure=True)


def stage(plan: Plan, name: str) -> StagePlan:
    return next(one for one in plan.stages if one.stage == name)


def configured(data: Path, store: Path, **tables: Any) -> DistillConfig:
    return parse_config(run_config(data, store, **tables))


def test_before_anything_is_made_the_checkpoint_is_measured_on_the_sources(
    own_data: Path, tmp_path: Path
):
    plan = measured(configured(own_data, tmp_path / "store"))
    cost = plan.teacher
    assert cost is not None
    assert plan.notes == ()
    # All of the corpus at most; four times a hundred, or all, where a hundred take no second.
    assert cost.rows in (100, 400, CORPUS_ROWS)
    assert cost.devices == ("cpu",)
    # Five to nine words of one piece each, and two special tokens.
    assert 7 <= cost.tokens_per_row <= 11
    assert 7 <= cost.train_tokens_per_row <= 11
    # Three classes in float16, and an id that nothing packs.
    assert 8 < cost.bytes_per_row <= 16
    logits, teacher = stage(plan, "logits"), stage(plan, "teacher")
    assert logits.disk == round(ALL_ROWS * cost.bytes_per_row)
    assert logits.seconds == pytest.approx(
        cost.labelling(corpus=CORPUS_ROWS, labelled=sum(ROWS.values()))
    )
    assert teacher.seconds is not None
    assert teacher.seconds > logits.seconds / 10
    assert not list((tmp_path / "store").glob("*/*"))


def test_a_teacher_that_is_made_is_measured_on_shards_that_are_made(
    own_data: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
):
    with (own_data / "corpus.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"even more {text}\n" for text, _ in texts(60, seed=9))
    monkeypatch.setattr(corpus_sample, "_of_source", None)
    plan = measured(configured(own_data, own_store))
    cost, logits = plan.teacher, stage(plan, "logits")
    assert cost is not None
    assert (logits.cached, logits.todo) == (6, 1)
    assert stage(plan, "teacher").seconds is None
    every = cost.labelling(corpus=CORPUS_ROWS + 60, labelled=sum(ROWS.values()))
    share = 60 / (CORPUS_ROWS + 60 + sum(ROWS.values()))
    assert logits.seconds == pytest.approx(every * share, rel=0.01)


def test_where_nothing_is_to_be_labelled_nothing_is_measured(own_data: Path, own_store: Path):
    for tables in ({}, {"student": {"epochs": 9}}):
        assert measured(configured(own_data, own_store, **tables)).teacher is None


def test_given_logits_need_no_teacher(own_data: Path, own_store: Path, tmp_path: Path):
    config = run_config(own_data, tmp_path / "fresh")
    del config["teacher"]
    config["logits"] = {"path": str(next(own_store.glob("logits/*/logits.parquet")))}
    plan = measured(parse_config(config))
    assert plan.teacher is None
    assert not [note for note in plan.notes if "measured" in note]


@pytest.mark.parametrize("break_it", ["model", "sources"])
def test_a_measure_that_fails_is_a_note(own_data: Path, tmp_path: Path, break_it: str):
    config = configured(own_data, tmp_path / "store", corpus={"sources": ["corpus.txt"]})
    if break_it == "model":
        (own_data / "encoder" / "model.safetensors").write_bytes(b"not a model")
    else:
        (own_data / "corpus.txt").unlink()
    plan = measured(config)
    assert plan.teacher is None
    assert len([note for note in plan.notes if "the teacher was not measured: " in note]) == 1
    assert stage(plan, "logits").state == "to do"


def test_a_checkpoint_that_is_only_on_the_hub_is_not_fetched_for_a_plan(tmp_path: Path):
    with pytest.raises(TeacherError, match="some/model is not on this machine yet"):
        local_checkpoint("some/model", "0" * 40)
    assert local_checkpoint(str(tmp_path), None) == tmp_path


def test_times_are_by_tokens_devices_and_the_grid():
    per_token = 2.0 / (100 * 20)
    assert COST.labelling(corpus=1000, labelled=50) == pytest.approx(per_token * 20_500)
    two = replace(COST, devices=("cuda:0", "cuda:1"), at_once=2)
    assert two.labelling(corpus=1000, labelled=50) == pytest.approx(per_token * 20_500 / 2)
    config = parse_config(run_config(Path("data"), Path("store"))).teacher
    assert config is not None
    grid = config.model_copy(
        update={"epochs": 3, "batch_sizes": (16, 32), "learning_rates": (1e-5,), "seeds": (0, 1)}
    )
    rows = 2 * 2 * 3 * (TRAINING * 100 + 30) + 30
    assert COST.fine_tuning(grid, train=100, dev=30) == pytest.approx(per_token * rows * 10)
    taken = config.model_copy(update={"finetune": False})
    assert COST.fine_tuning(taken, train=100, dev=30) == pytest.approx(per_token * 30 * 10)


def test_devices_that_no_worker_uses_are_told_of():
    assert "[run] workers" not in COST.told()
    told = replace(COST, devices=("cuda:0", "cuda:1", "cuda:2"), at_once=1).told()
    assert "There are 3 devices for it, but [run] workers is 1" in told


def test_the_teacher_is_measured_on_a_device_that_nobody_else_has(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(teacher_cost, "teacher_devices", lambda names: ("meta:0", "cpu"))
    held: list[bool] = []
    timed = teacher_cost._timed

    def spy(*given: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            held.append(not pool.submit(devices._processor.acquire, blocking=False).result())
        return timed(*given)

    monkeypatch.setattr(teacher_cost, "_timed", spy)
    with devices.device_in_turn(["meta:0"]):
        cost = measured(configured(own_data, tmp_path / "store")).teacher
    assert held == [True]
    assert cost is not None
    assert cost.devices == ("cpu", "meta:0"), "first the one that was measured"


def test_a_sample_is_spread_over_all_rows(own_data: Path, tmp_path: Path):
    assert spread(range(10), 3) == [1, 5, 8]
    assert spread(range(3), 10) == [0, 1, 2]
    assert spread([], 5) == []
    config = configured(own_data, tmp_path / "store")
    assert len(train_sample(config)) == ROWS["train"]
    for number in range(9):
        write_lines(own_data / f"part{number}.txt", ["", *(f"{number} {row}" for row in range(9))])
    parts = configured(own_data, tmp_path / "store", corpus={"sources": ["part*.txt"]})
    found = corpus_sample.corpus_sample(parts, None, ArtifactStore(tmp_path / "store"))
    assert {text[0] for text in found} == {"1", "3", "5", "7"}
    assert len(found) == 4 * 9


def test_the_command_tells_what_was_measured_unless_it_must_not(
    own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = write_toml(tmp_path / "tiny.toml", run_config(own_data, tmp_path / "store"))
    assert main(["plan", str(file)]) == 0
    assert "The teacher, measured on" in " ".join(capsys.readouterr().out.split())
    assert main(["plan", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["teacher"]["rows_per_second"] > 0
    assert main(["plan", str(file), "--json", "--no-measure"]) == 0
    assert json.loads(capsys.readouterr().out)["teacher"] is None


def test_what_was_measured_is_what_a_run_then_makes(own_data: Path, tmp_path: Path):
    config = configured(own_data, tmp_path / "store", baseline={"enabled": False})
    plan = measured(config)
    result = run_inline(config)
    assert plan.teacher is not None
    rows = sum(int(str(one.statistics["rows"])) for one in result.artifacts["logits"])
    assert stage(plan, "logits").rows == rows == ALL_ROWS
    corpus = max(one.path("logits.parquet").stat().st_size for one in result.artifacts["logits"])
    assert corpus / 200 == pytest.approx(plan.teacher.bytes_per_row, rel=0.8)
