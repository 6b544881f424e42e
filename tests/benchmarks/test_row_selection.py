"""What the benchmark of choosing rows trains on, and what it tells."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.tiny_task import run_config, write_toml

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(monkeypatch: pytest.MonkeyPatch, config: Path, *given: str) -> int:
    import row_selection

    # The tiny teacher is sure of nothing.
    monkeypatch.setattr(row_selection, "MARGINS", (0.0001, 0.05))
    sizes = ["--seeds", "2", "--epochs", "2", "--width", "6", "--batch-size", "64"]
    monkeypatch.setattr(sys, "argv", ["row_selection.py", str(config), *sizes, *given])
    return row_selection.main()


@pytest.fixture
def config(tiny_data: Path, own_store: Path, tmp_path: Path) -> Path:
    return write_toml(tmp_path / "tiny.toml", run_config(tiny_data, own_store))


def test_every_choice_is_trained_beside_as_many_rows_at_random(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "rows.json"
    assert run(monkeypatch, config, "--json", str(file)) == 0
    found = json.loads(file.read_text("utf-8"))
    names = [row["choice"] for row in found["rows"]]
    assert [name for name in names if not name.startswith(" ")] == [
        "all", "least_margin 0.0001", "least_margin 0.05", "balance even", "balance train",
        "near_duplicates drop",
    ]  # fmt: skip
    for row, before in zip(found["rows"][1:], found["rows"], strict=False):
        if row["choice"].startswith(" "):
            assert row["corpus_rows"] == before["corpus_rows"] <= 540
        assert [one["seed"] for one in row["runs"]] == [0, 1]
        assert 0 <= row["worst_class"] <= row["test"] <= 1
    assert found["rows"][0]["corpus_rows"] == 600
    # Twelve batches an epoch, whatever there is to learn from.
    assert found["environment"]["updates"] == 24
    assert "least_margin 0.05" in capsys.readouterr().out


def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"--only margin: there are all, least_margin 0\.0001"):
        run(monkeypatch, config, "--only", "margin")
