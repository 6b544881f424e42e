"""Files of arrays, written and read block by block, as the safetensors library has them."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from sparsedistill.errors import ModelFileError
from sparsedistill.training import state_files
from sparsedistill.training.state_files import (
    Part,
    Stored,
    check_stored,
    read_into,
    read_layout,
    write_parts,
)

shapes = st.lists(st.integers(0, 7), max_size=3).map(tuple)
dtypes = st.sampled_from(["f4", "f2", "f8", "i4", "i8", "u2", "i1", "u8"])


def array(shape, dtype, seed=0):
    values = np.random.default_rng(seed).integers(0, 100, shape)
    return np.asarray(values).astype(dtype)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(shapes, dtypes), max_size=5), st.sampled_from([1, 7, 64, 8 << 20]))
def test_a_file_is_what_the_library_reads_and_comes_back(tmp_path_factory, forms, block):
    path = tmp_path_factory.mktemp("files") / "arrays.safetensors"
    arrays = {f"a{i}": array(shape, dtype, i) for i, (shape, dtype) in enumerate(forms)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_files, "_BLOCK", block)
        stored = write_parts(path, {name: Part(value) for name, value in arrays.items()})
        check_stored(path.parent, stored)
        places, _ = read_layout(path)
        found = load_file(path)
        assert {name: value.tobytes() for name, value in found.items()} == {
            name: value.tobytes() for name, value in arrays.items()
        }
        for name, value in arrays.items():
            target = np.full_like(value, 9)
            read_into(path, places[name], target)
            assert target.tobytes() == value.tobytes()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 30),
    st.sampled_from([(), (3,), (2, 2)]),
    dtypes,
    st.data(),
    st.sampled_from([1, 20, 8 << 20]),
)
def test_rows_of_an_array_are_gathered_and_put_back(
    tmp_path_factory, count, rest, dtype, data, block
):
    path = tmp_path_factory.mktemp("files") / "rows.safetensors"
    values = array((count, *rest), dtype)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1)))), np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_files, "_BLOCK", block)
        write_parts(path, {"values": Part(values, rows)})
        assert load_file(path)["values"].tobytes() == values[rows].tobytes()
        target = np.full_like(values, 101)
        places, _ = read_layout(path)
        read_into(path, places["values"], target, rows=rows)
    expected = np.full_like(values, 101)
    expected[rows] = values[rows]
    assert target.tobytes() == expected.tobytes()


def test_an_array_that_is_not_contiguous_is_written_and_read_too(tmp_path):
    path = tmp_path / "file.safetensors"
    values = array((40, 6), "f4").T
    write_parts(path, {"values": Part(values)})
    target = np.zeros((40, 6), np.float32).T
    read_into(path, read_layout(path)[0]["values"], target)
    assert (target == values).all()


def test_neither_writing_nor_reading_holds_a_second_table(tmp_path, monkeypatch):
    monkeypatch.setattr(state_files, "_BLOCK", 64 << 10)
    path, table = tmp_path / "file.safetensors", np.ones((4000, 500), np.float32)
    rows = np.arange(0, 4000, 2)
    tracemalloc.start()
    stored = write_parts(path, {"all": Part(table), "some": Part(table, rows)})
    check_stored(tmp_path, stored)
    places, _ = read_layout(path)
    read_into(path, places["all"], table)
    read_into(path, places["some"], table, rows=rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < table.nbytes / 10


def test_a_file_that_is_not_what_was_written_is_named(tmp_path):
    path = tmp_path / "file.safetensors"
    stored = write_parts(path, {"values": Part(np.arange(10))})
    content = path.read_bytes()
    for changed, reason in ((content[:-1], "bytes, expected"), (content[:-1] + b"x", "checksum")):
        path.write_bytes(changed)
        with pytest.raises(ModelFileError, match=rf"file\.safetensors.*{reason}"):
            check_stored(tmp_path, stored)
    with pytest.raises(ModelFileError, match="gone: missing"):
        check_stored(tmp_path, Stored("gone", 1, 0))


@pytest.mark.parametrize("content", [b"", b"\x08" + bytes(7) + b"nonsense", b"\xff" * 64])
def test_what_is_no_safetensors_file_is_named(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"file\.safetensors: not a whole safetensors file"):
        read_layout(path)


def test_a_file_that_ends_while_it_is_read_is_named(tmp_path):
    path = tmp_path / "file.safetensors"
    write_parts(path, {"values": Part(np.arange(10))})
    places, _ = read_layout(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelFileError, match="ends at byte"):
        read_into(path, places["values"], np.zeros(10, np.int64))


def test_arrays_begin_where_their_numbers_can_be_read_in_place(tmp_path):
    path = tmp_path / "file.safetensors"
    forms = {"a": "i1", "b": "f8", "c": "f4", "d": "i8", "e": "u2"}
    write_parts(path, {name: Part(array((3,), dtype)) for name, dtype in forms.items()})
    places, _ = read_layout(path)
    for name, dtype in forms.items():
        assert places[name].begin % np.dtype(dtype).itemsize == 0
