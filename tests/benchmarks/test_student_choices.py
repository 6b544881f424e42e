"""What the benchmark of the student's choices changes, trains and prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.tiny_bert import write_tiny_bert
from helpers.tiny_task import WORDS, run_config, write_toml

from tasks.presets import PRESETS
from tasks.student_config import StudentConfig

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SIZES = {"width": 6, "hidden": 6, "batch_size": 64, "epochs": 2, "updates": None}


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(monkeypatch: pytest.MonkeyPatch, config: Path, *given: str) -> int:
    import student_choices

    sizes = ["--seeds", "2", "--epochs", "1", "--width", "6", "--batch-size", "64"]
    monkeypatch.setattr(sys, "argv", ["student_choices.py", str(config), *sizes, *given])
    return student_choices.main()


def test_every_choice_differs_from_the_recipe_in_one_thing() -> None:
    from student_choices import TRIED, choices

    student = StudentConfig.model_validate({"learning_rate": 2e-3, "seeds": [0, 1, 2]})
    base, *others = choices(student, SIZES)
    assert base.name == "default"
    assert (base.config.learning_rate, base.config.width, base.config.epochs) == (2e-3, 6, 2)
    names = [choice.name for choice in others]
    assert len(set(names)) == len(names)
    assert {choice.about for choice in others} == {*TRIED, "learning_rate", "preset"}
    assert {"learning_rate 0.001", "learning_rate 0.004", "temperature 4.0"} <= set(names)
    for choice in others:
        before, after = base.config.model_dump(), choice.config.model_dump()
        changed = {key for key in before if before[key] != after[key]} | set(choice.shape)
        if choice.about == "preset":
            assert all(after[key] == value for key, value in SIZES.items())
            assert after["learning_rate"] == PRESETS["paper"]["learning_rate"]
        else:
            assert changed == {choice.about}


def test_all_choices_of_a_small_task_are_trained_and_told(
    tiny_data: Path,
    own_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_toml(tmp_path / "tiny.toml", run_config(tiny_data, own_store))
    file = tmp_path / "choices.json"
    assert run(monkeypatch, config, "--json", str(file)) == 0
    found = json.loads(file.read_text("utf-8"))
    rows = {row["choice"]: row for row in found["rows"]}
    assert len(rows) > 25
    assert {"default", "pooling attentive", "start teacher", "preset paper"} <= set(rows)
    for row in rows.values():
        scores = [one["test"] for one in row["runs"]]
        assert row["test"] == pytest.approx(sum(scores) / 2)
        assert [one["seed"] for one in row["runs"]] == [0, 1]
        assert 0 <= row["dev"] <= 1
    assert found["environment"]["examples_seen"] == 720
    assert "pooling attentive" in capsys.readouterr().out


def test_only_what_is_asked_for_is_trained(
    tiny_data: Path, own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = run_config(tiny_data, own_store)
    config, file = write_toml(tmp_path / "tiny.toml", given), tmp_path / "choices.json"
    run(monkeypatch, config, "--only", "temperature", "layers 2", "--json", str(file))
    rows = json.loads(file.read_text("utf-8"))["rows"]
    assert [row["choice"] for row in rows] == ["temperature 1.0", "temperature 4.0", "layers 2"]
    with pytest.raises(SystemExit, match=r"--only pooing: there is no such choice; .*pooling max"):
        run(monkeypatch, config, "--only", "pooing")


def test_an_encoder_beside_given_logits_is_a_teacher_to_start_from(
    tiny_data: Path,
    own_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = (tiny_data / "corpus.txt").read_text("utf-8").splitlines()
    logits = [[float(len(line) % 3 == label) for label in range(3)] for line in lines]
    names = json.dumps(["garden", "kitchen", "railway"])
    table = pa.table({"text": lines, "logits": logits})
    table = table.replace_schema_metadata({"label_names": names})
    pq.write_table(table, tmp_path / "given.parquet")
    given = run_config(tiny_data, own_store, logits={"path": str(tmp_path / "given.parquet")})
    del given["teacher"]
    config, file = write_toml(tmp_path / "tiny.toml", given), tmp_path / "choices.json"
    with pytest.raises(SystemExit, match="no such choice"):
        run(monkeypatch, config, "--only", "start")
    assert "no teacher at hand" in capsys.readouterr().err
    encoder = write_tiny_bert(tmp_path / "encoder", WORDS)
    run(monkeypatch, config, "--only", "start", "--teacher", str(encoder), "--json", str(file))
    assert [row["choice"] for row in json.loads(file.read_text("utf-8"))["rows"]] == [
        "start teacher"
    ]
