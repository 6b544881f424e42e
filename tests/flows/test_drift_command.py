"""``drift`` as a user types it: what it prints and returns, and what it says when it cannot."""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
from pathlib import Path

import pytest
from helpers.tiny_task import WORDS

from flows.drift_command import DRIFTED, drift
from sparsedistill.classifier import Classifier
from sparsedistill.drift import measure_reference
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.folded import FoldedModel
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary

Captured = pytest.CaptureFixture[str]


def lines(rows: int, *, seed: int, words: list[str] = WORDS) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(4, 9))) for _ in range(rows)]


@pytest.fixture(scope="module")
def plain() -> Classifier:
    import numpy as np

    vocabulary = Vocabulary.from_ngrams(NgramSpec(), WORDS)
    rng = np.random.default_rng(0)
    folded = FoldedModel(
        labels=("good", "bad"),
        spec=vocabulary.spec,
        index=vocabulary.index,
        max_ngrams=2048,
        table=rng.standard_normal((len(WORDS), 8)).astype(np.float32),
        hidden_bias=np.zeros(8, np.float32),
        head_weight=rng.standard_normal((2, 8)).astype(np.float32),
        head_bias=np.zeros(2, np.float32),
    )
    return Classifier.from_folded(folded, vocabulary=vocabulary)


@pytest.fixture(scope="module")
def model(plain: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    reference = measure_reference(plain, lines(3000, seed=0)).to_json()
    directory = tmp_path_factory.mktemp("model")
    Classifier(plain.folded, ngrams=plain.ngrams, reference=reference).save_pretrained(directory)
    return directory


@pytest.fixture
def same(tmp_path: Path) -> Path:
    path = tmp_path / "same.txt"
    path.write_text("\n".join(lines(400, seed=1)) + "\n", "utf-8")
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.jsonl"
    german = lines(300, seed=1, words=["Züge", "fahren", "nicht", "mehr", "pünktlich"])
    path.write_text("".join(json.dumps({"body": text}) + "\n" for text in german), "utf-8")
    return path


def options(model: Path, *files: Path | str, **changes: object) -> argparse.Namespace:
    given = {
        "model": str(model),
        "files": [str(file) for file in files],
        "format": "auto",
        "column": "text",
        "json": None,
        "threads": 1,
        "against": None,
        "fail_on": None,
        **changes,
    }
    return argparse.Namespace(**given)


def test_texts_of_the_same_kind_are_the_same(model: Path, same: Path, capsys: Captured):
    assert drift(options(model, same)) == 0
    said = capsys.readouterr().out
    assert said.startswith("400 texts against a reference of 3,000: same\n")
    assert "coverage" in said


def test_other_texts_are_different_and_their_words_are_named(
    model: Path, other: Path, tmp_path: Path, capsys: Captured
):
    file = tmp_path / "report.json"
    assert drift(options(model, other, column="body", json=str(file))) == 0
    said = capsys.readouterr().out
    assert ": different\n" in said
    assert "pünktlich" in said
    report = json.loads(file.read_text("utf-8"))
    assert report["verdict"] == "different"
    assert report["rows"] == 300
    assert {one["ngram"] for one in report["unknown"]["ngrams"]} == {
        "züge", "fahren", "nicht", "mehr", "pünktlich",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fail_on", "verdict", "status"),
    [
        (None, "different", 0),
        ("shifted", "different", DRIFTED),
        ("different", "different", DRIFTED),
        ("shifted", "same", 0),
    ],
)
def test_a_script_can_tell_drift_by_the_exit_status(
    model: Path, same: Path, other: Path, fail_on: str | None, verdict: str, status: int
):
    file = same if verdict == "same" else other
    assert drift(options(model, file, column="body", fail_on=fail_on)) == status


def test_files_are_looked_at_together(model: Path, same: Path, other: Path, capsys: Captured):
    assert drift(options(model, same, other, column="body")) == 0
    assert capsys.readouterr().out.startswith("700 texts ")


def test_standard_input_is_read_if_no_file_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    content = "\n".join(lines(50, seed=2)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert drift(options(model)) == 0
    assert capsys.readouterr().out.startswith("50 texts ")


def test_texts_can_be_compared_with_other_texts(
    plain: Classifier, same: Path, other: Path, tmp_path: Path, capsys: Captured
):
    plain.save_pretrained(tmp_path / "model")
    bare = tmp_path / "model"
    with pytest.raises(ConfigError, match=r"no reference to compare with.*--against"):
        drift(options(bare, same))
    assert drift(options(bare, same, against=[str(same)], fail_on="shifted")) == 0
    against = [str(other)]
    assert drift(options(bare, same, column="body", against=against, fail_on="shifted")) == DRIFTED
    assert "400 texts against a reference of 300: different" in capsys.readouterr().out


def test_input_that_cannot_be_compared_is_an_error(model: Path, same: Path, tmp_path: Path):
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(DataError, match=r"empty\.txt: no text to compare"):
        drift(options(model, empty))
    with pytest.raises(DataError, match=r"nowhere\.txt cannot be read"):
        drift(options(model, same, tmp_path / "nowhere.txt"))
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\n")
    with pytest.raises(DataError, match=r"bad\.txt: line 2: not valid UTF-8"):
        drift(options(model, tmp_path / "bad.txt"))


HOSTILE = "Züge \x1b[2J\x1b]0;title\x07 \x9b31m fahren"


def test_texts_cannot_take_over_the_terminal(model: Path, tmp_path: Path, capsys: Captured):
    path = tmp_path / "hostile.jsonl"
    path.write_text(json.dumps({"text": HOSTILE}) + "\n", "utf-8")
    assert drift(options(model, path)) == 0
    said = capsys.readouterr().out
    assert not set(said) & {"\x1b", "\x07", "\x9b"}
    assert "fahren" in said


def test_least_known_texts_are_named_by_file_and_row_from_one(
    model: Path, tmp_path: Path, capsys: Captured
):
    known, new = "\n".join(lines(30, seed=1)), "ganz andere Wörter stehen hier"
    first, second, empty = (tmp_path / name for name in ("a.txt", "b.csv", "none.txt"))
    first.write_text(f"{known}\n{new}\n", "utf-8")
    second.write_text(f"text\n{new} auch\n{lines(1, seed=2)[0]}\n", "utf-8")
    empty.touch()
    report = tmp_path / "report.json"
    assert drift(options(model, first)) == 0
    assert "       31    0.0%  ganz andere" in capsys.readouterr().out
    assert drift(options(model, first, empty, second, json=str(report))) == 0
    said = capsys.readouterr().out
    assert f"{first}:31 " in said
    assert f"{second}:1 " in said
    examples = json.loads(report.read_text("utf-8"))["examples"]
    assert [(one["file"], one["row"]) for one in examples[:2]] == [
        (str(second), 1),
        (str(first), 31),
    ]


def test_standard_input_without_text_is_called_so(model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(DataError, match=r"^standard input: no text to compare"):
        drift(options(model))


def test_a_report_is_whole_or_not_there(model: Path, same: Path, tmp_path: Path, capsys: Captured):
    nowhere = str(tmp_path / "nowhere" / "x.json")
    with pytest.raises(ConfigError, match=r"--json .* cannot be written: No such file"):
        drift(options(model, same, json=nowhere))
    # Before the texts are read, so that no minute is lost.
    assert capsys.readouterr().out == ""
    report = tmp_path / "report.json"
    report.write_text("the last one")
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\n")
    with pytest.raises(DataError):
        drift(options(model, same, tmp_path / "bad.txt", json=str(report)))
    assert report.read_text() == "the last one"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bad.txt", "report.json", "same.txt",
    ]  # fmt: skip
