"""``inspect`` says what is in a model, ``bench`` what it does here."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.small_classifier import LABELS, NGRAMS, save, small_classifier

from flows import bench_command
from flows.cli import main
from sparsedistill.classifier import Classifier
from sparsedistill.ngram_effects import strongest_ngrams
from sparsedistill.text.buffers import TextBuffer

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    thresholds = {LABELS[0]: 0.8}
    return save(tmp_path_factory.mktemp("model") / "m", small_classifier(thresholds=thresholds))


def inspected(model: Path, capsys: Captured, *options: str) -> dict:
    assert main(["inspect", str(model), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_inspect_says_what_is_in_the_model(model: Path, capsys: Captured):
    found = inspected(model, capsys)
    assert found["labels"] == list(LABELS)
    assert found["rows"] == len(NGRAMS)
    assert found["rows_by_order"] == {"1": 6, "2": 1, "3": 1}
    assert (found["hidden"], found["dtype"], found["activation"]) == (16, "float32", "relu")
    assert found["width"] == 16
    assert found["temperature"] == 1.5
    assert found["thresholds"] == {LABELS[0]: 0.8}
    assert found["training"]["name"] == "small"
    assert found["reference"] is False
    assert {one["name"]: one["bytes"] for one in found["files"]} == {
        path.name: path.stat().st_size for path in model.iterdir()
    }


def test_inspect_prints_the_same_for_people(model: Path, capsys: Captured):
    assert main(["inspect", str(model), "--ngrams", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "3: negative, positive, so-so, or neither",
        "8 of 1 to 4 tokens, tokenizer word: 6 of 1 (75.0%)",
        "8 × 16 float32, relu",
        "negative 0.8",
        "made: inputs.student abc",
        "model.safetensors",
        "all sizes, and every checksum but that of the table; --verify reads it too",
        "n-grams that speak most for each label when they are all that is known of a text",
    ):
        assert words in said


def test_the_strongest_ngrams_are_those_of_texts_that_hold_nothing_else(
    model: Path, capsys: Captured
):
    # Only single tokens, so that each can be a text by itself.
    words = [one for one in NGRAMS if " " not in one]
    folded = Classifier.load(model).folded
    logits = folded.logits(TextBuffer.from_strings([*words, ""])).astype(float)
    centred = logits - logits.mean(axis=1, keepdims=True)
    effects = centred[:-1] - centred[-1]
    found = inspected(model, capsys, "--ngrams", "99")["strongest"]
    for c, label in enumerate(LABELS):
        shown = {one["ngram"]: one["effect"] for one in found[label]}
        assert set(shown) == set(NGRAMS)
        for word, effect in zip(words, effects[:, c], strict=True):
            assert shown[word] == pytest.approx(effect, abs=1e-5)
        values = [one["effect"] for one in found[label]]
        assert values == sorted(values, reverse=True)


def test_the_strongest_are_the_same_whatever_the_size_of_blocks(monkeypatch: pytest.MonkeyPatch):
    folded = small_classifier().folded
    whole = strongest_ngrams(folded, 3)
    monkeypatch.setattr("sparsedistill.ngram_effects._BLOCK", 3)
    assert strongest_ngrams(folded, 3) == whole
    # Of equals the more frequent n-gram, which is the earlier row.
    same = replace(folded, table=np.ones_like(folded.table))
    assert [[row for row, _ in rows] for rows in strongest_ngrams(same, 3)] == [[0, 1, 2]] * 3


def test_a_model_without_the_strings_of_its_ngrams_names_none(tmp_path: Path, capsys: Captured):
    bare = save(tmp_path / "bare", Classifier(small_classifier().folded))
    found = inspected(bare, capsys)
    assert found["rows_by_order"] is None
    assert found["strongest"] is None
    assert main(["inspect", str(bare)]) == 0
    assert "the n-grams' strings are not in this model" in capsys.readouterr().out


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = small_classifier()
    projection = np.random.default_rng(1).standard_normal((4, 16)).astype(np.float32)
    folded = replace(whole.folded, table=whole.folded.table[:, :4].copy(), projection=projection)
    model = Classifier(folded, ngrams=whole.ngrams)
    return save(tmp_path_factory.mktemp("narrow") / "m", model)


def test_of_a_narrowed_model_the_table_is_told_from_the_hidden_layer(
    narrow: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    found = inspected(narrow, capsys)
    assert (found["width"], found["hidden"]) == (4, 16)
    assert main(["inspect", str(narrow)]) == 0
    shape = "8 × 4 float32, through a projection to 16"
    assert f"{shape}, relu" in " ".join(capsys.readouterr().out.split())
    step = {"import": 0.1, "load": 0.002, "first_answer": 0.5, "compiled": 0, "process": 1.0}
    monkeypatch.setattr(bench_command, "_probe", lambda *_: step)
    out = tmp_path / "bench.json"
    arguments = ["--threads", "1", "--seconds", "0.01", "--json", str(out)]
    assert main(["bench", str(narrow), *arguments]) == 0
    assert shape in " ".join(capsys.readouterr().out.split())
    measured = json.loads(out.read_text("utf-8"))
    assert (measured["width"], measured["hidden"]) == (4, 16)


def test_a_path_that_cannot_be_written_is_known_before_anything_is_measured(
    model: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
):
    def measured(*_: object) -> dict:
        raise AssertionError("it was measured first")

    monkeypatch.setattr(bench_command, "_probe", measured)
    assert main(["bench", str(model), "--json", str(tmp_path / "nowhere" / "x.json")]) == 1
    assert "--json" in capsys.readouterr().err
    assert main(["bench", str(model), "--json", str(tmp_path)]) == 1
    assert f"--json {tmp_path}: it is a directory" in capsys.readouterr().err


def test_without_verify_the_table_alone_is_not_compared(
    model: Path, tmp_path: Path, capsys: Captured
):
    """As `inspect` says of itself."""
    for name in ("vocabulary.safetensors", "ngrams.txt.zst"):
        copy = Path(shutil.copytree(model, tmp_path / name))
        content = bytearray((copy / name).read_bytes())
        content[-1] ^= 1
        (copy / name).write_bytes(content)
        assert main(["inspect", str(copy)]) == 1
        assert name in capsys.readouterr().err


def test_verify_finds_what_a_size_does_not_tell(model: Path, tmp_path: Path, capsys: Captured):
    assert inspected(model, capsys, "--verify")["verified"]
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert main(["inspect", str(copy), "--verify"]) == 1
    said = capsys.readouterr()
    assert "model.safetensors" in said.err
    assert said.out == ""


def test_settings_that_cannot_be_are_refused(model: Path, capsys: Captured):
    for arguments in (
        ["inspect", str(model), "--ngrams", "-1"],
        ["bench", str(model), "--threads", "0"],
        ["bench", str(model), "--threads", "two"],
        ["bench", str(model), "--seconds", "0"],
        ["bench", str(model), "nowhere.txt"],
    ):
        assert main(arguments) == 1
        assert capsys.readouterr().err.startswith("error: ")


def test_made_up_texts_are_of_the_models_ngrams_and_always_the_same():
    classifier = small_classifier()
    texts = bench_command.made_up_texts(classifier, texts=50, ngrams=4)
    assert texts == bench_command.made_up_texts(classifier, texts=50, ngrams=4)
    assert len(texts) == 50
    words = {word for one in NGRAMS for word in one.split()}
    assert {word for text in texts for word in text.split()} <= words
    assert (classifier.coverage(texts) > 0).all()


def test_bench_measures_start_batches_and_single_texts(
    model: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
):
    probed = []

    def probe(directory: Path, environment: dict) -> dict:
        probed.append(dict(environment))
        return {"import": 0.1, "load": 0.002, "first_answer": 0.5, "compiled": 0, "process": 1.0}

    # A fresh process compiles for half a minute; one is started in the test below.
    monkeypatch.setattr(bench_command, "_probe", probe)
    texts, out = tmp_path / "texts.csv", tmp_path / "bench.json"
    texts.write_text("review\na good film\nbad\n")
    arguments = ["--column", "review", "--threads", "1,3", "--seconds", "0.05", "--json", str(out)]
    assert main(["bench", str(model), str(texts), *arguments]) == 0
    said = capsys.readouterr().out
    found = json.loads(out.read_text("utf-8"))
    (measured,) = found["texts"]
    assert (measured["name"], measured["texts"]) == ("texts.csv", 2)
    assert measured["bytes_per_text"] == 7
    assert [one["threads"] for one in measured["batches"]] == [1, 3]
    for one in measured["batches"]:
        assert one["bytes_per_second"] == pytest.approx(7 * one["texts_per_second"])
    assert 0 < measured["single"]["p50_us"] <= measured["single"]["p99_us"]
    assert probed[:2] == [{}, {}]
    assert probed[2]["NUMBA_CACHE_DIR"]
    for words in ("texts/s", "MB/s", "coverage", "p99", "numba", found["cpu"]):
        assert words in said
    assert main(["bench", str(model), "--threads", "1", "--seconds", "0.05"]) == 0
    assert "long, made up" in capsys.readouterr().out


def test_a_fresh_process_tells_its_first_steps(model: Path):
    found = bench_command._probe(model, {})
    assert min(found["import"], found["load"], found["first_answer"]) > 0
    assert found["process"] > found["import"] + found["load"] + found["first_answer"]
