"""Files of texts in every format that the commands over a finished model read and write."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

TEXTS = [
    "a good film",
    "not good, not good at all: a BAD film!",
    "",
    "nothing known, “quoted”, with a comma",
    "film\tfilm",
    "İstanbul ΟΔΟΣ 東京 🙂",
    " \u2028 \x0b\x0c\x85 bad ",
]


def write_texts(path: Path, texts: list[str] = TEXTS) -> Path:
    """A file of the format that its name tells, with a number beside each text."""
    kind = path.name.partition(".")[2].removesuffix(".gz").removesuffix(".zst")
    out = io.StringIO(newline="")
    if kind == "parquet":
        table = {"id": pa.array(range(len(texts))), "text": pa.array(texts, pa.string())}
        pq.write_table(pa.table(table), path)
        return path
    if kind == "jsonl":
        for i, text in enumerate(texts):
            out.write(json.dumps({"id": i, "text": text}) + "\n")
    elif kind in ("csv", "tsv"):
        writer = csv.writer(out, delimiter="," if kind == "csv" else "\t")
        writer.writerows([["id", "text"], *enumerate(texts)])
    else:
        out.writelines(f"{text}\n" for text in texts)
    data = out.getvalue().encode()
    if path.suffix == ".gz":
        # Two members, as `cat a.gz b.gz` makes them.
        data = gzip.compress(data[:20]) + gzip.compress(data[20:])
    elif path.suffix == ".zst":
        compressor = zstandard.ZstdCompressor()
        data = compressor.compress(data[:20]) + compressor.compress(data[20:])
    path.write_bytes(data)
    return path


def read_rows(path: Path) -> list[dict]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(data).read()
    if ".jsonl" in path.name:
        # Not `splitlines`: texts have other line ends in them.
        return [json.loads(line) for line in data.decode().split("\n")[:-1]]
    delimiter = "\t" if ".tsv" in path.name else ","
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=delimiter))
