"""What the training benchmark reads, compares and counts; its times are nobody's promise."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsedistill.bags import Bags

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def contest(tmp_path: Path):
    from training_contestants import Contest
    from training_data import made_up_features

    path = made_up_features(tmp_path, rows=300, ngrams=5, texts=80)
    return Contest(str(path), "ours", 300, 16, 20, warm_up=1, updates=2, threads=1)


def test_the_whole_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import training

    file = tmp_path / "training.json"
    only = ["ours", "ours, both", "torch, helped"]
    given = ["--tiny", "--work", str(tmp_path), "--json", str(file), "--only", *only]
    monkeypatch.setattr(sys, "argv", ["training.py", *given])
    assert training.main() == 0
    found = json.loads(file.read_text("utf-8"))
    assert [row["contestant"] for row in found["rows"]] == only
    assert [len(row["seconds"]) for row in found["rows"]] == [3, 3, 2]
    assert found["rows"][0]["apart"]["weights"] < 1e-4
    assert [part["part"] for part in found["parts"][0]["parts"]][-1] == "an update"
    assert "torch, helped" in capsys.readouterr().out


def test_contestants_that_learn_differently_are_not_timed(
    contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training
    from training_contestants import Peer

    monkeypatch.setattr(Peer, "step", lambda *given: 0.0)
    contests = {name: replace(contest, **how) for name, how in training.VARIANTS.items()}
    with pytest.raises(SystemExit, match="ours learns other than it should"):
        training.check(contests, 300)


def test_a_contestant_has_a_process_and_a_peak_of_its_own(contest) -> None:
    import training
    from training_contestants import peak_bytes, run

    held = np.ones(100 << 20, np.uint8)
    found = training.apart(argparse.Namespace(tiny=False), run, contest)
    assert len(found["seconds"]) == 2
    assert np.isfinite(found["loss"])
    assert found["peak_gb"] * 1e9 < peak_bytes() - len(held) / 2


def test_ratios_are_of_medians_to_the_faster_of_torchs_own_and_to_the_helped_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import training

    took = {
        "ours": [1.0, 2.0, 9.0],
        "torch": [30.0, 10.0, 20.0],
        "torch, 1 thread": [40.0],
        "torch, helped": [6.0],
    }
    runs = iter([*took.values(), *took.values()])
    monkeypatch.setattr(
        training,
        "apart",
        lambda *given: {"seconds": next(runs), "peak_gb": 1.0, "device_gb": None},
    )
    options = argparse.Namespace(rounds=2, only=list(took))
    rows = training.measure(16, dict.fromkeys(took), {"ours": {"loss": 0.0}}, options)
    assert [row["times torch"] for row in rows] == [10.0, None, None, None]
    assert [row["times helped"] for row in rows] == [3.0, None, None, None]
    assert [row["updates"] for row in rows] == [6, 6, 2, 2]
    assert rows[0]["apart"] == {"loss": 0.0}


def test_bags_are_the_first_ngrams_of_texts_that_have_as_many(tmp_path: Path) -> None:
    from training_contestants import read_bags
    from training_data import first_ngrams, write_bags

    texts = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]]
    offsets = np.cumsum([0, *map(len, texts)])
    rows = np.array([row for text in texts for row in text], np.int32)
    write_bags(tmp_path / "features.safetensors", Bags(rows, offsets))
    cut = first_ngrams([tmp_path], 2, tmp_path, batch=3)
    assert [bag.tolist() for bag in read_bags(cut)] == [[1, 2], [5, 6], [7, 8]]
    with pytest.raises(SystemExit, match="only 1 texts have 4 known n-grams, a batch is 2"):
        first_ngrams([tmp_path], 4, tmp_path, batch=2)
