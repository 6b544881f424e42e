"""Distilling again: what is done when nothing or something has changed, and what is current."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.house import ANY, House, Tables
from helpers.tiny_task import LABELS, run_config, texts, write_labelled, write_toml

from flows import current as decisions
from flows import redistillation
from flows.cli import main
from flows.config import DistillConfig
from flows.current import DecisionError
from flows.delivery import Delivery, RunResult, is_delivered
from flows.inline import run_inline
from flows.places import candidate
from flows.redistillation import Redistilled, look
from sparsedistill.classifier import Classifier
from tasks import corpus as corpus_stage
from tasks import features
from tasks.earlier import ROLE, Earlier


def made(done: Redistilled) -> dict[str, int]:
    """How many artifacts a run has computed, by stage."""
    assert done.result is not None
    counts = {s: sum(not o.cached for o in some) for s, some in done.result.outcomes.items()}
    return {stage: count for stage, count in counts.items() if count}


def test_a_first_run_promotes_what_it_makes_and_delivers_it(house: House):
    done = house.redistill()
    assert (done.outcome, done.why) == ("promoted", "the first model")
    assert done.result is not None
    assert done.result.computed() == 0  # the run before has made it all
    assert house.is_out(house.current())
    assert Delivery.below(candidate(house.out)).report.exists()
    assert Delivery.below(house.out).report.exists()


def test_nothing_changed_is_said_without_reading_the_corpus(
    settled: House, monkeypatch: pytest.MonkeyPatch
):
    def read(*_args: object, **_options: object) -> None:
        raise AssertionError("the corpus was read")

    monkeypatch.setattr(corpus_stage, "read_texts", read)
    monkeypatch.setattr("flows.inline.run_inline", read)
    done = settled.redistill()
    assert done.outcome == "unchanged"
    assert done.why.startswith("nothing has changed since the current model was made")
    assert done.result is None
    assert len(settled.decisions()) == 1


@pytest.mark.parametrize("server", [None, "http://127.0.0.1:4200/api"])
@pytest.mark.parametrize("force", [False, True])
def test_no_server_is_started_to_hear_that_nothing_has_changed(
    settled: House, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, server: str | None, force: bool,
):  # fmt: skip
    asked = []

    def with_prefect(config: DistillConfig, out: str, *, force: bool) -> Redistilled:
        asked.append(force)
        return Redistilled("unchanged", "as Prefect's server was told", look(config))

    monkeypatch.setattr("flows.run_commands._local_server", lambda: server)
    monkeypatch.setattr("flows.deployed.redistill_with_prefect", with_prefect)
    table = run_config(settled.data, Path(settled.store.url), **ANY)
    toml = write_toml(tmp_path / "tiny.toml", table)
    out = ["--out", str(settled.out)]
    assert main(["redistill", str(toml), *out, *(["--force"] if force else [])]) == 0
    said = "".join(capsys.readouterr())
    if server or force:
        assert asked == [force]
        assert "unchanged: as Prefect's server was told" in said
    else:
        assert asked == []
        assert "unchanged: nothing has changed since the current model was made" in said


def test_a_corpus_that_has_grown_costs_only_what_is_new(settled: House):
    old = settled.current()
    settled.grow()
    assert look(settled.config()).changes == ("corpus",)
    done = settled.redistill()
    assert done.outcome == "promoted"
    assert done.result is not None
    counts = made(done)
    assert counts["ngrams"] == 1
    assert counts["logits"] == 1
    assert "teacher" not in counts
    assert "dataset" not in counts
    kd = done.result.artifacts["student"][-1]
    assert kd.manifest.inputs[ROLE][0] == settled.decisions()[0].model.references["student"]
    assert settled.current() != old
    assert settled.is_out(settled.current())
    assert settled.redistill().outcome == "unchanged"


def test_a_student_that_starts_from_the_current_one_is_trained_as_long_as_asked(settled: House):
    settled.grow()
    done = settled.redistill(redistill={"margin": 0.99, "epochs": 1})
    assert done.result is not None
    anew, kd = done.result.artifacts["student"][0], done.result.artifacts["student"][-1]
    assert ROLE in kd.manifest.inputs
    assert ROLE not in anew.manifest.inputs
    examples: Any = kd.statistics["examples"]
    assert kd.statistics["updates"] == -(-examples // 64)
    assert kd.manifest.config["epochs"] == 1
    assert settled.redistill(redistill={"margin": 0.99, "epochs": 1}).outcome == "unchanged"


def test_the_verdict_is_in_the_decision_and_in_the_report(settled: House):
    settled.grow()
    done = settled.redistill()
    decision = settled.decisions()[-1]
    assert decision == done.decision
    assert decision.why.startswith("not worse by more than 99 points: dev ")
    assert set(decision.compared["splits"]) == {"dev", "test"}
    change = json.loads(Delivery.below(settled.out).summary.read_text())["change"]
    assert change["splits"] == decision.compared["splits"]
    assert change["ngrams"]["added"] == change["ngrams"]["gone"] > 0


BAD = {"student": {"epochs": 1, "learning_rate": 1e-9}, "finetune": {"enabled": False}}


def test_a_worse_model_is_kept_and_not_made_again(settled: House):
    old = settled.current()
    bad = {**BAD, "redistill": {"margin": 0.0, "start": "anew"}}
    done = settled.redistill(**bad)
    assert done.outcome == "kept"
    assert done.look.changes == ("settings",)
    assert done.why.startswith("worse on dev")
    assert settled.current() == old
    assert settled.is_out(old)
    assert not is_delivered(settled.store.get("package", old), candidate(settled.out))
    assert settled.redistill(**bad).outcome == "unchanged"
    again = settled.redistill(force=True, **bad)
    assert (again.outcome, made(again)) == ("kept", {})
    # What the current model was made of is nothing new either.
    assert settled.redistill(redistill={"margin": 0.99}).outcome == "unchanged"


def test_a_person_may_promote_what_was_kept(settled: House):
    bad = {**BAD, "redistill": {"margin": 0.0, "start": "anew"}}
    kept = settled.redistill(**bad).decision
    assert kept is not None
    decisions.promote(settled.store, "tiny")
    assert settled.current() == kept.model.package.key
    assert settled.redistill(**bad).outcome == "unchanged"
    assert settled.is_out(settled.current())  # it is put into its place on the way


def test_a_touched_file_costs_a_reading_and_no_training(settled: House):
    os.utime(settled.data / "corpus.txt", (1, 1))
    done = settled.redistill()
    assert (done.outcome, done.why) == ("kept", "the same model came out of it")
    assert set(made(done)) <= {"corpus", "promotion", "report"}
    assert settled.redistill().outcome == "unchanged"


@pytest.mark.parametrize(
    "tables",
    [
        {"run": {"threads": 2}},
        {"baseline": {"enabled": False}},
        {"evaluation": {"examples": 1}},
        {"student": {"baselines": []}},
        {"corpus": {"expected_rows": 5}},
    ],
    ids=str,
)
def test_what_decides_no_model_is_no_change(settled: House, tables: Tables):
    assert not look(settled.config(**tables)).changed


@pytest.mark.parametrize(
    ("tables", "part"),
    [
        ({"student": {"epochs": 9}}, "settings"),
        ({"package": {"dtype": "int8"}}, "settings"),
        ({"redistill": {"margin": 0.1}}, "settings"),
        ({"teacher": {"epochs": 9}}, "settings"),
        ({"corpus": {"max_rows": 9}}, "corpus"),
        ({"dataset": {"test": None}}, "dataset"),
    ],
    ids=str,
)
def test_what_decides_the_model_is_a_change(settled: House, tables: Tables, part: str):
    found = look(settled.config(**tables))
    assert found.changed
    assert part in found.changes


def test_new_labelled_rows_are_a_change(settled: House):
    with (settled.data / "train.csv").open("a") as file:
        file.write("rose and soil again and again,garden\n")
    found = look(settled.config())
    assert set(found.changes) == {"dataset", "teacher"}


def test_new_stages_are_a_change(settled: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(features, "STAGE", replace(features.STAGE, version=99))
    assert look(settled.config()).changes == ("software",)


def test_after_going_back_the_same_model_is_not_made_again(settled: House):
    first = settled.current()
    settled.grow()
    settled.redistill()
    second = settled.current()
    decisions.rollback(settled.store, "tiny")
    assert settled.current() == first
    done = settled.redistill()
    assert done.outcome == "unchanged"
    assert second not in done.why
    assert settled.is_out(first)


def test_other_labels_wait_for_a_person(settled: House):
    old = settled.current()
    for split, seed in (("train", 7), ("dev", 8), ("test", 9)):
        rows = [(text, label.replace("railway", "tram")) for text, label in texts(60, seed=seed)]
        write_labelled(settled.data / f"{split}.csv", rows)
    done = settled.redistill(student={"baselines": []}, baseline={"enabled": False})
    assert done.outcome == "kept"
    assert "cannot be compared" in done.why
    assert settled.current() == old
    decisions.promote(settled.store, "tiny")
    settled.redistill(student={"baselines": []}, baseline={"enabled": False})
    assert Classifier.load(Delivery.below(settled.out).model).classes_ == (
        *LABELS[:2], "tram",
    )  # fmt: skip


def test_a_dev_that_had_been_learned_from_is_no_judge_and_no_start(
    settled: House, caplog: pytest.LogCaptureFixture
):
    """Part of a train that has grown is put aside for dev: most of it is nothing new."""
    lines = (settled.data / "dev.csv").read_text().splitlines()[1:]
    with (settled.data / "train.csv").open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    carved = {"dataset": {"dev": None, "dev_share": 0.3}}
    done = settled.redistill(**carved)
    assert "that one learned from" in caplog.text
    assert done.result is not None
    assert not any(ROLE in one.manifest.inputs for one in done.result.artifacts["student"])
    assert done.decision is not None
    splits = done.decision.compared["splits"]
    assert splits["dev"]["left_out"] > splits["dev"]["rows"] > 0
    assert splits["test"]["left_out"] == 0


def test_a_current_model_that_is_gone_is_an_error_that_says_what_to_do(settled: House):
    settled.store.remove("package", settled.current())
    settled.grow()
    with pytest.raises(DecisionError, match=r"rollback.*promote"):
        settled.redistill()


def damage(house: House, role: str) -> None:
    """Flip a bit of what the current model was made of, or is."""
    there = decisions.current(house.decisions())
    assert there is not None
    one = there.model.references[role]
    artifact = house.store.get(one.kind, one.key)
    path = artifact.path(max(artifact.manifest.files, key=lambda file: file.bytes).name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("role", ["student", "vocabulary"])
def test_a_damaged_student_is_no_start_and_stops_nothing(
    settled: House, role: str, caplog: pytest.LogCaptureFixture
):
    old = settled.current()
    damage(settled, role)
    settled.grow()
    done = settled.redistill()
    assert "does not start from the earlier student" in caplog.text
    assert "is damaged" in caplog.text
    assert done.outcome == "promoted"
    assert done.result is not None
    assert not any(ROLE in one.manifest.inputs for one in done.result.artifacts["student"])
    assert settled.current() != old


def test_a_damaged_student_is_not_looked_at_where_none_starts_from_it(
    settled: House, caplog: pytest.LogCaptureFixture
):
    damage(settled, "student")
    settled.grow()
    done = settled.redistill(redistill={"margin": 0.99, "start": "anew"})
    assert done.outcome == "promoted"
    assert "does not start" not in caplog.text


@pytest.mark.parametrize("grown", [True, False])
@pytest.mark.parametrize("role", ["package", "train"])
def test_of_a_damaged_model_the_error_says_a_way_out_that_works(
    settled: House, role: str, grown: bool
):
    damage(settled, role)
    if grown:
        settled.grow()
    for _ in range(2):
        with pytest.raises(DecisionError, match=r"rollback.*distill.*promote"):
            settled.redistill(force=True)
    run_inline(settled.config())
    if grown:
        decisions.promote(settled.store, "tiny")
    else:
        with pytest.raises(DecisionError, match="is the current model of tiny already"):
            decisions.promote(settled.store, "tiny")
    done = settled.redistill(force=True)
    assert (done.outcome, done.why) == ("kept", "the same model came out of it")
    assert settled.redistill().outcome == "unchanged"
    assert settled.is_out(settled.current())


def running(house: House, meanwhile: Any) -> Redistilled:
    """Redistil, and have something happen between the run and the decision."""

    def run(config: DistillConfig, earlier: Earlier | None) -> RunResult:
        result = run_inline(config, earlier=earlier)
        meanwhile()
        return result

    return redistillation.redistill(house.config(), out=house.out, run=run)


def test_of_two_at_once_one_decides_and_the_other_says_so(settled: House):
    settled.grow()
    others: list[Redistilled] = []
    done = running(settled, lambda: others.append(settled.redistill()))
    assert [other.outcome for other in others] == ["promoted"]
    assert done.outcome == "promoted"
    assert done.why.startswith("another run decided the same at the same time")
    assert done.decision == others[0].decision
    assert [one.verdict for one in settled.decisions()] == ["promoted", "promoted"]
    assert settled.is_out(settled.current())


def test_a_decision_about_another_model_meanwhile_stands(settled: House):
    first = settled.current()
    settled.grow()
    settled.redistill()
    settled.grow(seed=5)
    done = running(settled, lambda: decisions.rollback(settled.store, "tiny"))
    assert done.outcome == "overtaken"
    assert "rolled back: back from the model of decision 2 to that of 1" in done.why
    assert settled.current() == first
    # What was overtaken was not decided: the next run compares it with what is current now.
    assert look(settled.config()).changed
    again = settled.redistill()
    assert again.outcome == "promoted"
    assert len(settled.decisions()) == 4
