"""Texts come out as they went in, whatever the format, the compression and the block size."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import SourceError, read_texts, streams

TEXTS = ["plain", "", 'comma, "quote" and\ttab', "two\nlines", "ünïcödé 漢字 🎉\u2028\x85", " x "]
ONE_LINE = [text.replace("\n", " ") for text in TEXTS]
COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def encoded(texts, suffix, column="text"):
    """A file of texts, written by the plainest means."""
    if suffix == "txt":
        return "".join(f"{text}\n" for text in texts).encode()
    if suffix == "jsonl":
        return "".join(json.dumps({"id": 1, column: text}) + "\n" for text in texts).encode()
    if suffix == "parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.table({"id": range(len(texts)), column: pa.array(texts, "str")}), buffer)
        return buffer.getvalue()
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter="," if suffix == "csv" else "\t")
    writer.writerows([["id", column], *([i, text] for i, text in enumerate(texts))])
    return buffer.getvalue().encode()


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "tsv", "parquet"])
def test_each_format_and_compression(tmp_path, read, suffix, compression):
    texts = ONE_LINE if suffix == "txt" else TEXTS
    path = tmp_path / f"a.{suffix}{compression}"
    path.write_bytes(COMPRESS[compression](encoded(texts, suffix)))
    found = read(path)
    assert found.texts == texts
    assert found.bad == []


# Characters that mean something to one of the formats come up often.
CHARACTERS = st.sampled_from('a",\t\n {}[]:\\é漢🎉\u2028\x85\x0b\ufeff') | st.characters(
    exclude_categories=["Cs"], exclude_characters="\0\r"
)
ANY_TEXTS = st.lists(st.text(CHARACTERS, max_size=20), max_size=12)


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "tsv", "parquet"])
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=ANY_TEXTS, block=st.integers(1, 40), batch_rows=st.integers(1, 5))
def test_any_texts_come_back_at_any_block_size(
    tmp_path, monkeypatch, read, suffix, texts, block, batch_rows
):
    if suffix == "txt":
        # A mark at the very start says UTF-8 and is no part of the text.
        texts = ["start", *(text.replace("\n", " ") for text in texts)]
    if suffix == "jsonl":
        texts = [*texts, "a file without a byte is an error"]
    monkeypatch.setattr(streams, "BLOCK", block)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encoded(texts, suffix))
    found = read(path, batch_rows=batch_rows)
    assert found.texts == texts
    assert found.bad == []
    assert all(size == batch_rows for size in found.batch_sizes[:-1])
    assert 0 not in found.batch_sizes


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.text(st.sampled_from("ab\r\né"), max_size=30).map(str.encode),
    block=st.integers(1, 8),
)
def test_lines_end_where_python_says_they_end(tmp_path, monkeypatch, read, data, block):
    path = tmp_path / "a.txt"
    path.write_bytes(data or b"\n")
    monkeypatch.setattr(streams, "BLOCK", block)
    with path.open(encoding="utf-8") as file:
        expected = [line.removesuffix("\n") for line in file]
    assert read(path).texts == expected


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.text(st.sampled_from('a"",,\n\ré'), max_size=40),
    block=st.integers(1, 8),
)
def test_csv_is_read_as_python_reads_it(tmp_path, monkeypatch, read, body, block):
    data = f'x,text\n{body}\n"",""\n'
    path = tmp_path / "a.csv"
    path.write_bytes(data.encode())
    monkeypatch.setattr(streams, "BLOCK", block)
    lines = data.replace("\r\n", "\n").replace("\r", "\n")

    def rows_of(text):
        return list(csv.reader(io.StringIO(text, newline="\n")))[1:]

    if rows_of(f"{lines}next,row\n")[-1] != ["next", "row"]:
        with pytest.raises(SourceError, match="never closed"):
            read(path)
        return
    rows = rows_of(lines)
    found = read(path)
    assert found.texts == [row[1] if row else "" for row in rows if len(row) in (0, 2)]
    assert len(found.bad) == sum(len(row) not in (0, 2) for row in rows)


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    fields=st.lists(st.text(st.sampled_from('a",\né'), max_size=30), min_size=1, max_size=6),
    limit=st.integers(12, 40),
    block=st.integers(1, 50),
)
def test_a_csv_record_that_is_too_long_costs_only_itself(
    tmp_path, monkeypatch, read, fields, limit, block
):
    path = tmp_path / "a.csv"
    path.write_bytes(encoded(fields, "csv").replace(b"\r\n", b"\n"))
    monkeypatch.setattr(streams, "BLOCK", block)
    sizes = [len(encoded([f], "csv").replace(b"\r\n", b"\n")) - len(b"id,text\n") for f in fields]
    found = read(path, max_bytes=limit)
    assert found.texts == [f for f, size in zip(fields, sizes, strict=True) if size <= limit]
    assert {bad.reason for bad in found.bad} <= {f"longer than {limit} bytes"}
    assert len(found.bad) + len(found.texts) == len(fields)


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, read, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + encoded(["one", "two"], suffix))
    assert read(path).texts == ["one", "two"]


def test_windows_line_ends_inside_a_quoted_field_become_unix_ones(tmp_path, read):
    (tmp_path / "a.csv").write_bytes(b'text\r\n"one\r\ntwo"\r\nthree\r\n')
    assert read(tmp_path / "a.csv").texts == ["one\ntwo", "three"]


def test_empty_rows_are_texts(tmp_path, read):
    (tmp_path / "a.txt").write_text("one\n\n\ntwo\n\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n  \n{"text": ""}\n')
    (tmp_path / "a.csv").write_text("text\none\n\ntwo\n")
    assert read(tmp_path / "a.txt").texts == ["one", "", "", "two", ""]
    assert read(tmp_path / "a.jsonl").texts == ["one", "", "", ""]
    assert read(tmp_path / "a.csv").texts == ["one", "", "two"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), "str")]
)
def test_every_kind_of_string_column_is_text(tmp_path, read, kind):
    array = pa.array(TEXTS).cast(kind)
    pq.write_table(pa.table({"text": array}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").texts == TEXTS


def test_another_column_by_name(tmp_path, read):
    for suffix in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(encoded(["x", "y"], suffix, column="sentence"))
        assert read(path, text_column="sentence").texts == ["x", "y"]


def test_several_compressed_files_joined_are_one(tmp_path, read):
    for suffix in (".gz", ".zst"):
        parts = [COMPRESS[suffix](text.encode()) for text in ("one\ntw", "o\nthree")]
        (tmp_path / f"a.txt{suffix}").write_bytes(b"".join(parts))
        assert read(tmp_path / f"a.txt{suffix}").texts == ["one", "two", "three"]


def test_files_without_rows_give_none(tmp_path, read):
    for suffix in ("csv", "tsv", "parquet"):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(encoded([], suffix))
        assert read(path).texts == []


def test_batches_have_their_size_across_all_blocks(tmp_path, read):
    (tmp_path / "a.txt").write_text("".join(f"{i}\n" for i in range(100_000)))
    found = read(tmp_path / "a.txt", batch_rows=30_000)
    assert found.batch_sizes == [30_000, 30_000, 30_000, 10_000]
    assert found.texts == [str(i) for i in range(100_000)]


@pytest.mark.parametrize("suffix", ["txt.zst", "jsonl.zst", "csv.zst"])
def test_an_endless_line_takes_bounded_memory(tmp_path, read, suffix):
    start = {"txt": b"", "jsonl": b'{"text": "', "csv": b'text\n"'}[suffix.split(".")[0]]
    stop = {"txt": b"", "jsonl": b'"}', "csv": b'"'}[suffix.split(".")[0]]
    body = b"a" * (1 << 20)
    compressor = zstandard.ZstdCompressor().compressobj()
    path = tmp_path / f"a.{suffix}"
    with path.open("wb") as file:
        file.write(compressor.compress(start))
        for _ in range(200):
            file.write(compressor.compress(body))
        file.write(compressor.compress(stop + b"\n\n"))
        file.write(compressor.flush())
    tracemalloc.start()
    found = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [bad.reason for bad in found.bad] == ["longer than 1,048,576 bytes"]
    assert found.texts == [""]
    assert peak < 20e6


def test_a_url_is_read_like_a_path(tmp_path, read):
    pytest.importorskip("aiohttp")
    (tmp_path / "a.csv").write_bytes(encoded(TEXTS, "csv"))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/a.csv?download=1"
        try:
            assert read(url).texts == TEXTS
        finally:
            server.shutdown()


def test_nothing_is_opened_before_the_first_batch_is_asked_for(tmp_path):
    read_texts(tmp_path / "missing.txt", on_bad=print)
