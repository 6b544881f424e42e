"""Each way a row can be bad is told with its file, row and reason, and costs no other row."""

from __future__ import annotations

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from storage import SourceError, read_labelled, streams

LONG = "longer than 1,048,576 bytes"


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def parquet_of(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def binary_as_text(values):
    """A text column that holds bytes which are no UTF-8, as careless writers make them."""
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


@pytest.mark.parametrize("block", [3, 1 << 18])
def test_txt(tmp_path, read, monkeypatch, block):
    monkeypatch.setattr(streams, "BLOCK", block)
    path = write(
        tmp_path / "a.txt", b"good\nnot \xff utf\nnul \0 here\n\nx\ngood too\xc3\xa9\n\xc3"
    )
    found = read(path)
    assert found.texts == ["good", "", "x", "good tooé"]
    assert found.reasons == [(2, "invalid UTF-8"), (3, "NUL character"), (7, "invalid UTF-8")]
    assert found.bad[0].source == str(path)
    assert found.bad[0].excerpt == r"not \\xff utf"
    assert found.bad[1].excerpt == r"nul \x00 here"


def test_jsonl(tmp_path, read):
    rows = [
        '{"text": "good"}',
        '{"text": "cut',
        '["text"]',
        '"text"',
        '{"title": "x", "body": "y"}',
        '{"text": 5}',
        '{"text": null}',
        '{"text": ["x"]}',
        '{"text": "nul \\u0000"}',
        '{"text": "half \\ud83d"}',
        "[" * 100_000,
        '{"text": "whole \\ud83c\\udf89"}',
        '{"text": 1' + "0" * 5000 + "}",
        "{}",
    ]
    found = read(write(tmp_path / "a.jsonl", "\n".join(rows)))
    assert found.texts == ["good", "whole 🎉"]
    reasons = dict(found.reasons)
    assert reasons[2].startswith("malformed JSON: Unterminated string")
    assert reasons[3] == reasons[4] == "malformed JSON: not an object"
    assert reasons[5] == "no field 'text'; there are: 'title', 'body'"
    assert reasons[6] == "'text': int, not text"
    assert reasons[7] == "'text': null instead of text"
    assert reasons[8] == "'text': list, not text"
    assert reasons[9] == "'text': NUL character"
    assert reasons[10] == "'text': invalid UTF-8"
    assert reasons[11].startswith("malformed JSON")
    assert reasons[13].startswith("malformed JSON")
    assert reasons[14] == "no field 'text'; there are: none"
    assert len(reasons) == 12


def test_jsonl_lines_that_are_no_text_at_all(tmp_path, read):
    found = read(write(tmp_path / "a.jsonl", b'{"text": "\xff"}\n{"text": "a\0"}\n{"text": "b"}\n'))
    assert found.texts == ["b"]
    assert found.reasons == [(1, "invalid UTF-8"), (2, "NUL character")]


@pytest.mark.parametrize(("suffix", "mark"), [("csv", b","), ("tsv", b"\t")])
def test_csv_and_tsv(tmp_path, read, suffix, mark):
    data = (
        b"id,text\n"
        b"1,good\n"
        b'2,"two\nlines"\n'
        b"3,bad \xff\n"
        b"4,nul \0\n"
        b"5\n"
        b"6,a,b\n"
        b"\xff,the other column may be what it likes\n"
        b"8,\n"
    )
    found = read(write(tmp_path / f"a.{suffix}", data.replace(b",", mark)))
    assert found.texts == ["good", "two\nlines", "the other column may be what it likes", ""]
    assert found.reasons == [
        (5, "'text': invalid UTF-8"),
        (6, "'text': NUL character"),
        (7, "1 fields where the header has 2"),
        (8, "3 fields where the header has 2"),
    ]


def test_parquet(tmp_path, read):
    values = [b"good", None, b"\xff\xfe", b"nul \0", b"x" * 2_000_000, "gut é".encode(), b""]
    found = read(parquet_of(tmp_path / "a.parquet", text=binary_as_text(values)))
    assert found.texts == ["good", "gut é", ""]
    assert found.reasons == [
        (2, "null instead of text"),
        (3, "invalid UTF-8"),
        (4, "NUL character"),
        (5, LONG),
    ]


def test_parquet_rows_are_numbered_across_batches(tmp_path, read):
    texts = ["x"] * 30_000
    texts[20_000] = None
    found = read(parquet_of(tmp_path / "a.parquet", text=texts))
    assert found.reasons == [(20_001, "null instead of text")]
    assert len(found.texts) == 29_999


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "tsv"])
def test_a_line_of_ten_megabytes_is_bad_and_its_neighbours_are_good(tmp_path, read, suffix):
    lines = ["before", "x" * 10_000_000, "after"]
    if suffix == "jsonl":
        lines = [json.dumps({"text": line}) for line in lines]
    elif suffix != "txt":
        lines = ["text", *lines]
    found = read(write(tmp_path / f"a.{suffix}", "\n".join(lines)))
    assert found.texts == ["before", "after"]
    assert found.reasons == [(3 if suffix in ("csv", "tsv") else 2, LONG)]
    assert len(found.bad[0].excerpt) <= 80


@pytest.mark.parametrize("length", [999, 1000, 1001])
def test_the_limit_is_exact(tmp_path, read, length):
    for name in ("a.txt", "b.txt"):
        filler = "y\n" * 500_000 if name == "b.txt" else ""
        found = read(
            write(tmp_path / name, f"{'é' * (length // 2)}{'x' * (length % 2)}\n{filler}"),
            max_bytes=1000,
        )
        assert len(found.bad) == (length > 1000)


def test_a_long_csv_field_over_many_lines_is_one_bad_row(tmp_path, read):
    body = 'line, with ""quotes""\n' * 100_000
    found = read(write(tmp_path / "a.csv", f'text,n\nfirst,1\n"{body}",2\nlast,3\n'))
    assert found.texts == ["first", "last"]
    assert found.reasons == [(3, LONG)]


@pytest.mark.parametrize("rows", [3, 200_000])
def test_a_quote_that_never_closes_is_an_error_and_not_the_silent_loss_of_the_rest(
    tmp_path, read, rows
):
    path = write(tmp_path / "a.csv", 'text\ngood\n"opened\n' + "lost text\n" * rows)
    with pytest.raises(SourceError, match="row 3: a quote opened in this row is never closed"):
        read(path)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_wrong_column_is_named_with_those_there_are(tmp_path, read, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        parquet_of(path, title=["a"], body=["b"])
    else:
        write(path, "title,body\na,b\n".replace(",", "," if suffix == "csv" else "\t"))
    with pytest.raises(SourceError, match=r"no column 'text'; .*title.*body"):
        read(path)


def test_a_column_there_twice_is_ambiguous(tmp_path, read):
    with pytest.raises(SourceError, match="two columns 'text'"):
        read(write(tmp_path / "a.csv", "text,text\na,b\n"))


def test_a_parquet_column_of_numbers_is_no_text(tmp_path, read):
    with pytest.raises(SourceError, match="column 'text' holds int64, not text"):
        read(parquet_of(tmp_path / "a.parquet", text=[1, 2]))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl.gz", "a.csv", "a.parquet", "a.parquet.zst"])
def test_missing_and_empty_files_are_named(tmp_path, read, name):
    path = tmp_path / name
    with pytest.raises(SourceError, match=f"{name}: the file does not exist"):
        read(path)
    path.write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    with pytest.raises(SourceError, match=f"{name}: the file is empty"):
        read(path)


def test_a_directory_and_an_unknown_suffix_are_refused(tmp_path, read):
    (tmp_path / "d.txt").mkdir()
    with pytest.raises(SourceError, match=r"d\.txt: the file cannot be read"):
        read(tmp_path / "d.txt")
    with pytest.raises(SourceError, match=r"unknown suffix '\.docx'"):
        read(write(tmp_path / "a.docx", "x"))


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("name", ["a.txt", "a.parquet"])
def test_a_compressed_file_cut_short_or_altered_is_damaged(tmp_path, read, name, suffix):
    compress = gzip.compress if suffix == "gz" else zstandard.compress
    whole = compress(b"some text of this file\n" * 1000)
    for data in (whole[:-3], whole[: len(whole) // 2], b"this is no compressed file"):
        with pytest.raises(SourceError, match="damaged"):
            read(write(tmp_path / f"{name}.{suffix}", data))


def test_a_damaged_parquet_file_is_named(tmp_path, read):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(50_000)]}), buffer)
    data = buffer.getvalue()
    altered = data[:100] + b"\xff" * 5000 + data[5100:]
    for bad in (data[:-1], data[:1000], b"no parquet", altered):
        with pytest.raises(SourceError, match=r"a\.parquet: it is no readable Parquet file"):
            read(write(tmp_path / "a.parquet", bad))


# Labelled sets.


def labelled(path, **options):
    return read_labelled(path, text_column="text", label_column="label", **options)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet", "csv.gz"])
def test_labelled_rows(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    rows = [("good film", "pos"), ("", "neg"), ("two\nlines", "pos")]
    if suffix == "parquet":
        parquet_of(path, text=[t for t, _ in rows], label=[label for _, label in rows])
    elif suffix == "jsonl":
        write(path, "\n".join(json.dumps({"label": b, "text": a}) for a, b in rows) + "\n\n")
    else:
        text = "".join(f'{b},"{a}"\n' for a, b in [("text", "label"), *rows]) + "\n"
        text = text.replace(",", "\t") if suffix == "tsv" else text
        write(path, gzip.compress(text.encode()) if suffix.endswith("gz") else text)
    found = labelled(path)
    assert found.texts == ["good film", "", "two\nlines"]
    assert found.labels == ["pos", "neg", "pos"]
    assert found.label_names is None


def test_numbers_as_labels_with_their_names(tmp_path):
    table = pa.table({"text": ["a", "b"], "label": [1, 0]})
    path = tmp_path / "a.parquet"
    pq.write_table(table.replace_schema_metadata({"label_names": '["neg", "pos"]'}), path)
    assert labelled(path).labels == [1, 0]
    assert labelled(path).label_names == ["neg", "pos"]
    pq.write_table(table.replace_schema_metadata({"label_names": '["neg"]'}), path)
    with pytest.raises(SourceError, match="row 1: label 1 has no name; label_names has 1"):
        labelled(path)
    pq.write_table(table.replace_schema_metadata({"label_names": "neg,pos"}), path)
    with pytest.raises(SourceError, match="no JSON list of strings"):
        labelled(path)
    assert labelled(write(tmp_path / "a.jsonl", '{"text": "a", "label": 3}')).labels == [3]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a"}', "row 2: no field 'label'"),
        ('{"text": "a", "label": null}', "row 2: missing label"),
        ('{"text": "a", "label": ""}', "row 2: missing label"),
        ('{"text": "a", "label": 1.0}', r"row 2: label 1\.0 is a float"),
        ('{"text": "a", "label": true}', "row 2: label True is a bool"),
        ('{"text": "a", "label": 1}', "row 2: label 1 where the rows before have str labels"),
        ('{"text": "a", "label": "\\u0000"}', "row 2: label: NUL character"),
        ('{"text": 1, "label": "x"}', "row 2: int, not text"),
        ('{"text": null, "label": "x"}', "row 2: null instead of text"),
        ("{", "row 2: malformed JSON"),
        ("x" * 2_000_000, f"row 2: {LONG}"),
    ],
)
def test_any_problem_of_a_labelled_set_is_an_error_with_file_row_and_reason(tmp_path, row, message):
    path = write(tmp_path / "train.jsonl", f'{{"text": "a", "label": "x"}}\n{row}\n')
    with pytest.raises(SourceError, match=rf"train\.jsonl, {message}") as caught:
        labelled(path)
    assert caught.value.row == 2


def test_labelled_csv_and_parquet_errors_name_row_and_columns(tmp_path):
    with pytest.raises(SourceError, match=r"row 1: no column 'label'.*'text', 'labels'"):
        labelled(write(tmp_path / "a.csv", "text,labels\na,b\n"))
    with pytest.raises(SourceError, match="row 2: 1 fields where the header has 2"):
        labelled(write(tmp_path / "a.csv", "text,label\na\n"))
    with pytest.raises(SourceError, match="row 2: missing label"):
        labelled(write(tmp_path / "a.csv", "text,label\na,\n"))
    with pytest.raises(SourceError, match="row 2: invalid UTF-8"):
        labelled(write(tmp_path / "a.csv", b"text,label\n\xff,x\n"))
    with pytest.raises(SourceError, match="row 2: null instead of text"):
        labelled(parquet_of(tmp_path / "a.parquet", text=["a", None], label=["x", "y"]))
    bad = parquet_of(tmp_path / "b.parquet", text=binary_as_text([b"a", b"\xff"]), label=[1, 2])
    with pytest.raises(SourceError, match="row 2: invalid UTF-8"):
        labelled(bad)
    with pytest.raises(SourceError, match="no column 'label'"):
        labelled(parquet_of(tmp_path / "c.parquet", text=["a"]))
    with pytest.raises(SourceError, match="holds no labels"):
        labelled(write(tmp_path / "a.txt", "x"))
    with pytest.raises(SourceError, match="does not exist"):
        labelled(tmp_path / "missing.csv")
