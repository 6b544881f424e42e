"""Equal rows must give equal bytes: digests, and so everything downstream, hang on it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import DamagedArtifactError, StorageError, open_writer, read_table, write_table

ROWS = 25_000
IDS = list(range(ROWS))
TEXTS = [f"text number {i} é" if i % 7 else None for i in range(ROWS)]
LOGITS = pa.array([[float(i), -1.5] for i in range(ROWS)], pa.list_(pa.float32(), 2))
TABLE = pa.table({"id": IDS, "text": TEXTS, "logits": LOGITS})


def test_a_table_comes_back_with_its_schema(tmp_path):
    table = TABLE.replace_schema_metadata({"labels": '["a"]'})
    write_table(tmp_path / "t.parquet", table)
    found = read_table(tmp_path / "t.parquet")
    assert found.equals(table)
    assert found.schema.metadata == table.schema.metadata


def test_columns_come_in_the_order_asked_for(tmp_path):
    write_table(tmp_path / "t.parquet", TABLE)
    found = read_table(tmp_path / "t.parquet", ["text", "id"])
    assert found.equals(TABLE.select(["text", "id"]))
    assert read_table(tmp_path / "t.parquet", []).num_rows == ROWS


def test_bytes_do_not_depend_on_how_the_table_is_chunked(tmp_path):
    pieces = [TABLE.slice(start, 777) for start in range(0, ROWS, 777)]
    write_table(tmp_path / "whole.parquet", TABLE, row_group_rows=10_000)
    write_table(tmp_path / "chunks.parquet", pa.concat_tables(pieces), row_group_rows=10_000)
    shifted = pa.concat_tables([TABLE.slice(0, 5), TABLE]).slice(5)
    write_table(tmp_path / "shifted.parquet", shifted, row_group_rows=10_000)
    one, two, three = (p.read_bytes() for p in sorted(tmp_path.iterdir()))
    assert one == two == three


def test_row_groups_have_the_number_of_rows_asked_for_and_zstd(tmp_path):
    write_table(tmp_path / "t.parquet", TABLE, row_group_rows=10_000)
    meta = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert [meta.row_group(i).num_rows for i in range(3)] == [10_000, 10_000, 5_000]
    for number in range(3):
        column = meta.row_group(0).column(number)
        assert column.compression == "ZSTD", column.path_in_schema
        assert not column.has_dictionary_page


def test_columns_inside_lists_and_structs_are_compressed_too(tmp_path):
    rows = [{"bag": [1, 2], "deep": [[3.0]], "both": {"x": 1, "y": ["a"]}}] * 9
    write_table(tmp_path / "t.parquet", pa.Table.from_pylist(rows))
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    assert group.num_columns == 4
    assert {group.column(i).compression for i in range(4)} == {"ZSTD"}
    assert read_table(tmp_path / "t.parquet").to_pylist() == rows


def test_a_column_takes_the_encoding_asked_for(tmp_path):
    table = pa.table({"sorted": range(ROWS), "bags": [[i, i * i] for i in range(ROWS)]})
    encodings = {"sorted": "DELTA_BINARY_PACKED", "bags.list.element": "BYTE_STREAM_SPLIT"}
    write_table(tmp_path / "t.parquet", table, encodings=encodings)
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    assert "DELTA_BINARY_PACKED" in group.column(0).encodings
    assert group.column(0).compression == "UNCOMPRESSED"
    assert "BYTE_STREAM_SPLIT" in group.column(1).encodings
    assert group.column(1).compression == "ZSTD"
    assert read_table(tmp_path / "t.parquet").equals(table)


def test_one_changed_byte_of_a_page_is_found_when_it_is_read(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, TABLE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedArtifactError, match="CRC"):
        read_table(path)


def test_each_write_of_an_open_writer_is_one_row_group_empty_ones_too(tmp_path):
    with open_writer(tmp_path / "t.parquet", TABLE.schema) as writer:
        writer.write_table(TABLE.slice(0, 10))
        writer.write_table(TABLE.slice(0, 0))
        writer.write_table(TABLE)
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        meta = file.metadata
        assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [10, 0, ROWS]
        assert file.read_row_group(1).num_rows == 0


def test_a_table_without_rows_keeps_its_schema(tmp_path):
    write_table(tmp_path / "t.parquet", TABLE.slice(0, 0))
    assert read_table(tmp_path / "t.parquet").schema == TABLE.schema


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    write_table(tmp_path / "t.parquet", TABLE)
    with pytest.raises(StorageError, match=r"no column \['texts'\]; it has \['id', 'text'"):
        read_table(tmp_path / "t.parquet", ["id", "texts"])


@pytest.mark.parametrize("keep", [0, 3, 1000, -1])
def test_a_truncated_table_is_damaged_and_named(tmp_path, keep):
    write_table(tmp_path / "t.parquet", TABLE)
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data[:keep])
    with pytest.raises(DamagedArtifactError, match=r"t\.parquet"):
        read_table(tmp_path / "t.parquet")


def test_altered_pages_are_damaged_and_a_missing_file_is_missing(tmp_path):
    write_table(tmp_path / "t.parquet", TABLE)
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[100:2000] = b"\xff" * 1900
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(DamagedArtifactError):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "u.parquet")


def test_a_row_group_of_no_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="row_group_rows"):
        write_table(tmp_path / "t.parquet", TABLE, row_group_rows=0)
