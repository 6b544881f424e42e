"""`tune` tries settings on what the pipeline made, and prints the best as configuration."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from helpers.tiny_task import run_config, write_toml

from flows.cli import main
from flows.tune_command import _lines
from sparsedistill.training.search import Candidate
from storage import ArtifactStore

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def config(own_data: Path, own_store: Path, tmp_path: Path) -> Path:
    return write_toml(tmp_path / "tiny.toml", run_config(own_data, own_store))


def test_the_best_of_the_candidates_is_printed_as_configuration(
    config: Path, tmp_path: Path, capsys: Captured
):
    found = tmp_path / "found.json"
    rates = ["1e-9", "0.05", "1e-8"]
    status = main(
        ["tune", str(config), "--learning-rates", *rates, "--widths", "8", "12",
         "--examples", "3000", "--json", str(found)]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert status == 0
    best = tomllib.loads(printed[printed.index("[student]") :])["student"]
    assert best["learning_rate"] == 0.05
    assert best["width"] == best["hidden"] in {8, 12}
    assert best["batch_size"] == 64
    report = json.loads(found.read_text("utf-8"))
    assert report["best"] == best
    assert report["complete"] is True
    # Six short runs, the best two of them three times as long, and the best of those again.
    assert [run["examples"] for run in report["runs"]] == [3000] * 6 + [9000] * 2
    scores = {run["learning_rate"]: run["dev_accuracy"] for run in report["runs"]}
    assert scores[0.05] > max(scores[1e-9], scores[1e-8])
    assert "learning_rate 0.05, batch_size 64, width 8, hidden 8: " in printed


def test_nothing_is_added_to_a_store_that_has_all_a_student_needs(
    config: Path, own_store: Path, capsys: Captured
):
    before = {(one.kind, one.key) for one in ArtifactStore(str(own_store)).artifacts()}
    assert main(["tune", str(config), "--minutes", "1e-9", "--examples", "100"]) == 0
    after = {(one.kind, one.key) for one in ArtifactStore(str(own_store)).artifacts()}
    assert after == before
    # One candidate is tried whatever the time.
    assert "The time was over" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [["--minutes", "0"], ["--learning-rates", "-1"], ["--examples", "0"]]
)
def test_numbers_that_cannot_work_are_refused_before_anything_is_made(
    own_data: Path, tmp_path: Path, wrong: list[str], capsys: Captured
):
    config = write_toml(tmp_path / "new.toml", run_config(own_data, tmp_path / "new"))
    assert main(["tune", str(config), *wrong]) == 1
    assert "must be positive" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_width_that_does_not_fit_is_refused_before_anything_is_made(
    own_data: Path, tmp_path: Path, capsys: Captured
):
    run = {"student_memory": "2GB"}
    config = write_toml(tmp_path / "new.toml", run_config(own_data, tmp_path / "new", run=run))
    assert main(["tune", str(config), "--widths", "8", "1000000"]) == 1
    assert "does not fit into 2000MB" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_candidate_is_printed_as_exactly_as_it_was_tried():
    lines = _lines(Candidate(0.00012345678, 1 << 20, 96))
    found = tomllib.loads("\n".join(lines))
    assert found == {
        "learning_rate": 0.00012345678, "batch_size": 1 << 20, "width": 96, "hidden": 96,
    }  # fmt: skip
