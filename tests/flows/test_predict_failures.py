"""``predict`` where it cannot go on: what it says, and what it leaves behind."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from helpers.small_classifier import LABELS, save, small_classifier

from flows.cli import main

ROOT = Path(__file__).parents[2]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    thresholds = dict.fromkeys(LABELS, 0.7)
    return save(tmp_path_factory.mktemp("model") / "m", small_classifier(thresholds=thresholds))


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch):
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--abstain-below", "often"], "a probability such as 0.8, or 'model', not 'often'"),
        (["--abstain-below", "1.5"], "between 0 and 1"),
        (["--top", "0"], "--top must be at least 1, not 0"),
        (["--threads", "0"], "threads must be 1 or more"),
        (["--output", "nowhere/x.csv"], "--output nowhere/x.csv cannot be written: No such file"),
        (["nothing.csv"], "nothing.csv cannot be read: No such file"),
        (["-", "-"], "standard input (-) can be read only once"),
        (["."], ". cannot be read: it is a directory"),
        (["--output", "."], "--output .: it is a directory"),
    ],
)
def test_what_cannot_be_asked_for_is_said_before_anything_is_read(
    model: Path, stdin, capsys: Captured, arguments: list[str], message: str
):
    stdin(b"good\n")
    assert main(["predict", str(model), *arguments]) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_thresholds_that_the_model_has_not_cannot_be_used(tmp_path: Path, stdin, capsys: Captured):
    bare = save(tmp_path / "bare", small_classifier())
    stdin(b"good\n")
    assert main(["predict", str(bare), "--abstain-below", "model"]) == 1
    assert "this model has no thresholds" in capsys.readouterr().err


def test_labels_that_would_break_lines_are_refused_for_text_alone(
    tmp_path: Path, stdin, capsys: Captured
):
    bad = save(tmp_path / "bad", small_classifier(("one\ntwo", "b", "c")))
    stdin(b"good\n")
    assert main(["predict", str(bad)]) == 1
    assert "use --output-format jsonl" in capsys.readouterr().err
    stdin(b"good\n")
    assert main(["predict", str(bad), "--output-format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("text,label,probability\n")


GOOD_CSV = b"id,text\n1,good\n2,bad\n"
# Without the time: processes that share the tests must name them alike.
GZIPPED = gzip.compress(b"good\n" * 3, mtime=0)
ZSTANDARD = zstandard.compress(b"good\n" * 3)


@pytest.mark.parametrize(
    ("name", "content", "message", "rows"),
    [
        ("x.txt", b"good\nbad\n\xe9t\xe9\ngood\n", "line 3: not valid UTF-8 (inv", 2),
        ("x.txt", b"\xff\xfeg\x00", "line 1: not valid UTF-8", 0),
        ("x.jsonl", b'{"text": "good"}\n{"text": 3}\n', "line 2: 'text' is 3, not text", 1),
        ("x.jsonl", b'{"text": "good"}\n\n{"text": null}\n', "line 3: 'text' is null: fill or", 1),
        ("x.jsonl", b'{"text": "good"}\n{"txt": "x"}\n', "line 2: no field 'text'; there", 1),
        ("x.jsonl", b'{"text": "good"}\n{"text": "x"', "line 2: malformed JSON: ", 1),
        ("x.jsonl", b'{"text": "\\ud83d"}\n', "line 1: 'text' has the lone surrogate U+D83D", 0),
        ("x.jsonl", b'{"text": "\xff"}\n', "line 1: not valid UTF-8 (invalid start byte at", 0),
        ("x.json", b'[{"text": "good"}]\n', "line 1: not a JSON object: one object a line", 0),
        ("x.jsonl", b"[" * 100_000, "line 1: malformed JSON", 0),
        ("x.csv", GOOD_CSV + b"3,x,y\n4,z\n", "line 4: 3 fields where the header has 2", 2),
        ("x.csv", GOOD_CSV + b'3,"x\n4,z\n', "line 4: a quote opened in this row is", 2),
        ("x.csv", GOOD_CSV + b"3,\xe9\n", "line 4: not valid UTF-8", 2),
        ("x.csv", b"id,review\n1,x\n", "no column 'text'; there is 'id', 'review': name one", 0),
        ("x.csv", b"text,text\n1,x\n", "two columns 'text'", 0),
        ("x.tsv", b"id\ttext\n1\tgood\n2\n", "line 3: 1 fields where the header has 2", 1),
        ("x.parquet", b"no parquet", "it is no readable Parquet file", 0),
        ("x.txt.gz", GZIPPED[:-6], "the gzip file is damaged or cut short", None),
        ("x.txt.gz", GZIPPED + b"\x1f\x8bjunk" * 9, "the gzip file is damaged", None),
        ("x.txt.zst", ZSTANDARD[:-6], "the zstandard file is cut short", None),
        ("x.txt.zst", ZSTANDARD + b"\x28\xb5\x2f\xfd" * 9, "zstandard file is", None),
    ],
)  # fmt: skip
def test_a_bad_row_ends_it_with_file_and_row_after_the_rows_before(
    model: Path, tmp_path: Path, capsys: Captured,
    name: str, content: bytes, message: str, rows: int | None,
):  # fmt: skip
    path = tmp_path / name
    path.write_bytes(content)
    assert main(["predict", str(model), str(path)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {path}: ")
    assert message in said.err
    assert "Traceback" not in said.err
    if rows is not None:
        assert len(said.out.splitlines()) == rows


def test_a_null_in_parquet_is_named_by_its_row(model: Path, tmp_path: Path, capsys: Captured):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["good"] * 9000 + [None, "bad"]}), path)
    assert main(["predict", str(model), str(path)]) == 1
    said = capsys.readouterr()
    assert f"{path}: row 9001: 'text' is null" in said.err
    assert len(said.out.splitlines()) == 9000


def test_a_column_that_is_no_text_is_refused(model: Path, tmp_path: Path, capsys: Captured):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": [1, 2]}), path)
    assert main(["predict", str(model), str(path)]) == 1
    assert "column 'text' holds int64, not text" in capsys.readouterr().err


def test_files_of_other_columns_cannot_go_into_one_table(
    model: Path, tmp_path: Path, capsys: Captured
):
    (tmp_path / "a.csv").write_text("text\ngood\n")
    (tmp_path / "b.csv").write_text("text,id\ngood,1\n")
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    assert main(["predict", str(model), *files, "--output-format", "csv"]) == 1
    assert "its columns are text, id, those of" in capsys.readouterr().err
    assert main(["predict", str(model), *files, "--output-format", "jsonl"]) == 0


def test_json_lines_as_a_table_keep_to_the_fields_of_the_first(
    model: Path, tmp_path: Path, capsys: Captured
):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "good", "n": null, "x": [1]}\n{"text": "bad", "n": "é"}\n')
    assert main(["predict", str(model), str(path), "--output-format", "csv"]) == 0
    first, second = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (first["n"], first["x"]) == ("", "[1]")
    assert (second["n"], second["x"]) == ("é", "")
    path.write_text('{"text": "good"}\n{"text": "bad", "n": 1}\n')
    assert main(["predict", str(model), str(path), "--output-format", "csv"]) == 1
    assert "the field 'n' comes up after the first row" in capsys.readouterr().err


def test_json_lines_of_one_type_then_another_are_no_parquet(
    model: Path, tmp_path: Path, capsys: Captured
):
    path, out = tmp_path / "x.jsonl", tmp_path / "y.parquet"
    path.write_text('{"text": "good", "n": 1}\n{"text": "bad", "n": "one"}\n')
    assert main(["predict", str(model), str(path), "--output", str(out)]) == 1
    assert "'n' does not keep to one type" in capsys.readouterr().err
    assert not out.exists()


def test_an_output_that_failed_leaves_what_was_there(model: Path, tmp_path: Path, capsys: Captured):
    path, out = tmp_path / "x.txt", tmp_path / "out" / "labels.txt"
    out.parent.mkdir()
    out.write_text("from before\n")
    path.write_bytes(b"good\n" * 500_000 + b"\xff\n")
    assert main(["predict", str(model), str(path), "--output", str(out)]) == 1
    assert out.read_text() == "from before\n"
    assert list(out.parent.iterdir()) == [out]
    path.write_bytes(b"good\n")
    assert main(["predict", str(model), str(path), "--output", str(out)]) == 0
    assert out.read_text() != "from before\n"
    assert list(out.parent.iterdir()) == [out]
    assert capsys.readouterr().out == ""


def test_a_killed_run_leaves_nothing_under_the_name_of_its_output(model: Path, tmp_path: Path):
    out = tmp_path / "out" / "labels.csv"
    out.parent.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "predict", str(model), "--output", str(out)],
        stdin=subprocess.PIPE, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdin
        try:
            process.stdin.write(b"a good film\n")
            process.stdin.flush()
            while not any(path.stat().st_size for path in out.parent.iterdir()):
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            process.kill()
    assert not out.exists()
