"""``compress`` at the command line: what it writes, what it prints, and what it refuses."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli import main
from sparsedistill.classifier import Classifier
from sparsedistill.compression.sizes import saved_bytes
from sparsedistill.folded import FoldedModel
from sparsedistill.model_format import save_model
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary

LABELS = ("bad", "good")
WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "rstz"]


def vocabulary() -> Vocabulary:
    ngrams = [*WORDS, *(f"{a} {b}" for a, b in itertools.pairwise(WORDS))]
    plain = Vocabulary.from_ngrams(NgramSpec(), ngrams)
    counts = np.arange(len(ngrams), 0, -1) * 3
    return Vocabulary(plain.spec, plain.ngrams, plain.hashes, counts, counts[::-1] // 2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose first half of words is good and the other bad, more or less."""
    rng = np.random.default_rng(0)
    ngrams = vocabulary()
    table = rng.standard_normal((len(ngrams), 16)).astype(np.float32)
    table[:, 0] += np.where(np.arange(len(ngrams)) % len(WORDS) < len(WORDS) / 2, 3, -3)
    head = np.zeros((2, 16))
    head[:, :2] = [[-1, 0.3], [1, -0.3]]
    folded = FoldedModel(
        labels=LABELS, spec=ngrams.spec, index=ngrams.index, max_ngrams=100, table=table,
        hidden_bias=np.full(16, 1.0), head_weight=head, head_bias=np.array([1.0, -1]),
        activation="tanh", temperature=1.5,
    )  # fmt: skip
    save_model(tmp_path / "model", folded, ngrams, training={"teacher": "someone"})
    return tmp_path / "model"


def rows(model: Path, count: int = 80) -> list[tuple[str, str]]:
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(count)]
    labels = Classifier.load(model).predict(texts)
    # A tenth of the labels are others than the model's.
    wrong = [LABELS[1 - LABELS.index(label)] for label in labels]
    labels[::10] = wrong[::10]
    return list(zip(texts, labels, strict=True))


def dev_file(model: Path, suffix: str = "jsonl") -> str:
    file = model.parent / f"dev.{suffix}"
    found = rows(model)
    if suffix == "jsonl":
        file.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in found))
    elif suffix == "csv":
        file.write_text("text,label\n" + "".join(f'"{t}",{LABELS.index(y)}\n' for t, y in found))
    else:
        texts, labels = zip(*found, strict=True)
        # Numbered the other way round than in the model.
        names = {"label_names": json.dumps(["good", "bad"])}
        table = pa.table({"text": texts, "label": [1 - LABELS.index(y) for y in labels]})
        pq.write_table(table.replace_schema_metadata(names), file)
    return str(file)


def compress(*arguments: object) -> int:
    return main(["compress", *map(str, arguments)])


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_each_step_is_printed_with_what_it_costs_and_gains(
    suffix: str, model: Path, capsys: pytest.CaptureFixture[str]
):
    out, found = model.parent / "small", model.parent / "steps.json"
    options = ("--keep-share", 0.5, "--dtype", "int8", "--dev", dev_file(model, suffix))
    assert compress(model, out, *options, "--json", found) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[:4]] == [
        "step", "given", "prune", "quantise",
    ]  # fmt: skip
    assert "90.00" in printed.splitlines()[1]
    said = json.loads(found.read_text())
    assert [step["rows"] for step in said["steps"]] == [319, 160, 160]
    assert said["steps"][0]["accuracy"] == 0.9
    assert said["bytes"] == saved_bytes(out)
    small = Classifier.load(out, verify=True)
    assert (small.folded.table_type, len(small.folded.index)) == ("int8", 160)
    assert small.training["teacher"] == "someone"
    assert small.folded.temperature == said["temperature"] != 1.5


def test_without_dev_sizes_alone_are_printed_and_the_temperature_stays(
    model: Path, capsys: pytest.CaptureFixture[str]
):
    out = model.parent / "small"
    assert compress(model, out, "--dtype", "float16") == 0
    given, quantised = capsys.readouterr().out.splitlines()[1:3]
    assert given.split()[-4:] == ["–"] * 4
    assert quantised.split()[-4:] == ["–"] * 4
    assert Classifier.load(out).folded.temperature == 1.5


@pytest.mark.parametrize("limit", ["9kB", "12KB", "15000"])
@pytest.mark.parametrize("dev", [True, False])
def test_a_largest_size_is_kept_on_disk(
    limit: str, dev: bool, model: Path, capsys: pytest.CaptureFixture[str]
):
    out = model.parent / "small"
    options = ["--dev", dev_file(model)] if dev else []
    assert compress(model, out, "--max-size", limit, *options) == 0
    size = sum(file.stat().st_size for file in out.iterdir())
    assert size <= {"9kB": 9000, "12KB": 12_000, "15000": 15_000}[limit]
    printed = capsys.readouterr().out
    assert "tried: by" in printed
    assert f"{out}: {size:,} bytes" in printed


def test_a_least_accuracy_is_kept_and_the_model_smaller(model: Path):
    out = model.parent / "small"
    assert compress(model, out, "--min-accuracy", "0.95x", "--dev", dev_file(model)) == 0
    small, dev = Classifier.load(out), rows(model)
    texts, labels = zip(*dev, strict=True)
    right = np.mean(np.array(small.predict(texts)) == np.array(labels))
    assert right >= 0.95 * 0.9
    assert saved_bytes(out) < saved_bytes(model) / 2


def test_counts_of_the_vocabulary_serve_the_rules_that_need_them(
    model: Path, capsys: pytest.CaptureFixture[str]
):
    out, counts = model.parent / "small", model.parent / "counts"
    options = ("--keep-share", 0.1, "--keep-by", "train_count")
    assert compress(model, out, *options) == 1
    assert "which a packaged model does not have" in capsys.readouterr().err
    vocabulary().save(counts)
    assert compress(model, out, *options, "--counts", counts) == 0
    # Counts in train rise with the row.
    assert list(Classifier.load(out).ngrams or ()) == list(vocabulary().ngrams)[-32:]


def test_counts_of_another_vocabulary_are_refused(model: Path, capsys: pytest.CaptureFixture[str]):
    Vocabulary.from_ngrams(NgramSpec(), WORDS).save(model.parent / "other")
    options = ("--keep-share", 0.5, "--counts", model.parent / "other")
    assert compress(model, model.parent / "small", *options) == 1
    assert "n-gram 'bar bas' is not in that vocabulary" in capsys.readouterr().err


def test_a_small_model_can_be_made_smaller_again(model: Path):
    once, twice = model.parent / "once", model.parent / "twice"
    assert compress(model, once, "--keep-share", 0.5, "--dtype", "float16") == 0
    assert compress(once, twice, "--max-size", "6kB", "--dev", dev_file(model)) == 0
    assert saved_bytes(twice) <= 6000
    assert Classifier.load(twice).training["compressed_from"] == {"rows": 160, "dtype": "float16"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say how the model is to become smaller"),
        (["--min-accuracy", "0.9x"], "--min-accuracy takes --dev FILE"),
        (["--min-accuracy", "lots", "--dev", "DEV"], "write 0.93, or 0.99x"),
        (["--max-size", "small"], "is no amount of memory"),
        (["--max-size", "100"], "no model fits into 100 bytes: one row alone takes about"),
        (["--max-size", "9kB", "--keep-share", "0.5"], "give either the share"),
        (["--keep-share", "1.5"], "above 0 and at most 1, not 1.5"),
        (["--dtype", "int8", "--dev", "no.csv"], "no.csv cannot be read"),
        (["--dtype", "int8", "--dev", "lines.txt"], "lines of text have no labels"),
        (["--dtype", "int8", "--dev", "DEV", "--label-column", "y"], "no column 'y'"),
        (["--min-accuracy", "1", "--dev", "DEV"], "accuracy 1.0000 .* nearest: .* accuracy 0.9"),
        (
            ["--min-accuracy", "0.9", "--max-size", "3500", "--dev", "DEV"],
            "most accurate is .*; the smallest of that accuracy is .* bytes",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    options: list[str], said: str, model: Path, capsys: pytest.CaptureFixture[str]
):
    given = [dev_file(model) if option == "DEV" else option for option in options]
    assert compress(model, model.parent / "small", *given) == 1
    assert re.search(said, capsys.readouterr().err)
    assert sorted(path.name for path in model.parent.iterdir() if path.is_dir()) == ["model"]


def test_a_model_is_not_written_over_itself(model: Path, capsys: pytest.CaptureFixture[str]):
    assert compress(model, model, "--dtype", "int8") == 1
    assert "is the model itself" in capsys.readouterr().err
    Classifier.load(model, verify=True)


def test_a_model_without_its_ngrams_is_refused(model: Path, capsys: pytest.CaptureFixture[str]):
    save_model(model.parent / "bare", Classifier.load(model).folded, None)
    assert compress(model.parent / "bare", model.parent / "small", "--dtype", "int8") == 1
    assert "saved without its n-grams" in capsys.readouterr().err


def test_a_label_that_the_model_does_not_have_names_its_row(
    model: Path, capsys: pytest.CaptureFixture[str]
):
    file = model.parent / "dev.csv"
    file.write_text("text,label\nbar,good\nbar,so-so\n")
    assert compress(model, model.parent / "small", "--dtype", "int8", "--dev", file) == 1
    assert "row 2 has the label 'so-so', which is none of the model's" in capsys.readouterr().err


def test_labelled_texts_keep_their_order_over_many_batches(tmp_path: Path):
    from flows.labelled_rows import read_labelled_texts

    file = tmp_path / "many.tsv"
    lines = [f"{'x' * 400} {i}\t{i % 2}\n" for i in range(9000)]
    file.write_text("text\tlabel\n" + "".join(lines))
    texts, truth = read_labelled_texts(str(file), LABELS)
    assert isinstance(texts, TextBuffer)
    assert [int(text.split()[1]) for text in texts] == list(range(9000))
    assert truth.tolist() == [i % 2 for i in range(9000)]
