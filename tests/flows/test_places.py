"""Where models are put, and what commands say about the one that is in use."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from helpers.house import House
from helpers.tiny_task import run_config, write_toml

from flows import current as decisions
from flows import places
from flows.cli import main
from flows.config import DistillConfig, parse_config
from flows.places import candidate, deliver_current, promotion_command
from flows.redistillation import Redistilled, look

BAD = {
    "student": {"epochs": 1, "learning_rate": 1e-9},
    "finetune": {"enabled": False},
    "redistill": {"margin": 0.0, "start": "anew"},
}
LEARNED = "its teacher learned [urgent], [/b] and \x1b[31m"


def command_of(said: str) -> list[str]:
    """The command that a line of an answer tells, in backquotes."""
    program, *arguments = shlex.split(said.split("`")[1])
    assert program == "sparsedistill"
    return arguments


def redistilled_at_the_command_line(house: House, directory: Path, **tables: Any) -> int:
    config = run_config(house.data, Path(house.store.url), **tables)
    toml = write_toml(directory / "tiny.toml", config)
    return main(["redistill", str(toml), "--no-prefect", "--out", str(house.out)])


def test_what_was_kept_is_promoted_by_the_command_that_is_told(
    settled: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    old = settled.current()
    assert redistilled_at_the_command_line(settled, tmp_path, **BAD) == 0
    said = capsys.readouterr().out
    assert f"the new model is in {candidate(settled.out)}/model" in said
    assert settled.is_out(old)
    assert main(command_of(said)) == 0
    assert settled.current() != old
    assert settled.is_out(settled.current())


def test_nothing_is_told_of_a_promotion_where_the_same_model_came_out(
    settled: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (settled.data / "corpus.txt").touch()
    tables = {"redistill": {"margin": 0.99}}
    assert redistilled_at_the_command_line(settled, tmp_path, **tables) == 0
    said = capsys.readouterr().out
    assert "kept: the same model came out of it" in said
    assert "promote" not in said


def test_a_store_elsewhere_is_part_of_the_command_and_the_usual_one_is_not(tmp_path: Path):
    there = tmp_path / "a store"
    told = promotion_command(parse_config(run_config(tmp_path, there)), "runs/tiny")
    assert shlex.split(told)[3:] == ["--store", str(there), "--out", "runs/tiny"]
    usual = parse_config({**run_config(tmp_path, there), "run": {}})
    assert promotion_command(usual, "runs/tiny") == "sparsedistill promote tiny --out runs/tiny"


def test_who_delivers_last_delivers_what_was_decided_last(
    settled: House, monkeypatch: pytest.MonkeyPatch
):
    first = settled.current()
    settled.grow()
    deliver, delivered = places.deliver_model, []

    def taken_back_meanwhile(report: Any, package: Any, out: Any) -> Any:
        delivered.append(package.key)
        if len(delivered) == 1:
            decisions.rollback(settled.store, "tiny")
        return deliver(report, package, out)

    monkeypatch.setattr(places, "deliver_model", taken_back_meanwhile)
    assert settled.redistill().outcome == "promoted"
    assert delivered[1:] == [first]
    assert settled.current() == first
    assert settled.is_out(first)


def test_a_model_in_its_place_is_not_delivered_again(
    settled: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(places, "deliver_model")
    assert deliver_current(settled.store, "tiny", settled.out).model == settled.out / "model"


def test_nothing_is_delivered_where_no_model_is_current(house: House):
    deliver_current(house.store, "tiny", house.out)
    assert not house.out.exists()


def test_what_was_tried_since_is_told_where_nothing_has_changed(settled: House):
    settled.redistill(**BAD)
    assert "which was kept: worse on dev" in settled.redistill(**BAD).why
    first, last = settled.decisions()
    # What the current model was made of is back.
    assert settled.redistill().why.endswith(f"since the current model was made, {first.when}")
    decisions.promote(settled.store, "tiny")
    made = settled.decisions()[-1].when
    assert settled.redistill(**BAD).why.endswith(f"since the current model was made, {made}")
    assert last.verdict == "kept"


def test_what_was_rolled_back_is_told_where_nothing_has_changed(settled: House):
    settled.grow()
    settled.redistill()
    last = settled.decisions()[-1]
    decisions.rollback(settled.store, "tiny")
    assert settled.redistill().why.endswith(f"{last.when}, which was rolled back")


def test_brackets_and_escapes_of_what_was_decided_are_told_as_they_are(
    settled: House,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def decided(config: DistillConfig, out: str, *, force: bool) -> Redistilled:
        return Redistilled("kept", LEARNED, look(config))

    monkeypatch.setattr("flows.redistill_commands.redistill_inline", decided)
    settled.out = tmp_path / ("a[b]" * 30)
    assert redistilled_at_the_command_line(settled, tmp_path) == 0
    said = capsys.readouterr().out
    assert "kept: its teacher learned [urgent], [/b] and \ufffd[31m" in said
    assert f"model   {settled.out}/model\n" in said
