"""Files of arrays: the library's own bytes, made without a copy of any array."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors import safe_open
from safetensors.numpy import load, save

from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.tensor_files import growing_tensor, read_tensors, write_tensors

TYPES = ["u8", "i8", "f8", "f4", "u4", "i4", "f2", "u2", "i2", "i1", "u1", "?"]
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
array = st.sampled_from(TYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=5))
)
tensors = st.dictionaries(names, array, min_size=1, max_size=6)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors") / "some.safetensors"


@given(tensors, st.none() | st.dictionaries(names, names, max_size=1))
def test_the_bytes_are_those_of_the_library(path, content, metadata):
    write_tensors(path, content, metadata=metadata)
    assert path.read_bytes() == save(content, metadata=metadata)


@given(tensors)
def test_what_is_written_is_mapped_again_read_only(path, content):
    write_tensors(path, content)
    found = read_tensors(path, {name: (one.dtype, one.shape) for name, one in content.items()})
    assert set(found) == set(content)
    for name, one in content.items():
        assert found[name].dtype == one.dtype
        assert found[name].shape == one.shape
        assert found[name].tobytes() == one.tobytes()
        assert found[name].flags.aligned
        assert not found[name].flags.writeable


def test_arrays_may_be_changed_without_changing_the_file(tmp_path):
    expected = {"table": (np.float32, (3, 2))}
    write_tensors(tmp_path / "file", {"table": np.ones((3, 2), np.float32)})
    mine = read_tensors(tmp_path / "file", expected, writable=True)["table"]
    mine[1] = 5
    assert mine.tolist() == [[1, 1], [5, 5], [1, 1]]
    assert (read_tensors(tmp_path / "file", expected)["table"] == 1).all()


def test_metadata_come_in_one_order(tmp_path):
    for name, keys in (("one", "abc"), ("other", "cba")):
        write_tensors(tmp_path / name, {"x": np.ones(3)}, metadata={key: key for key in keys})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    with safe_open(tmp_path / "one", framework="numpy") as file:
        assert file.metadata() == {"a": "a", "b": "b", "c": "c"}


def test_columns_and_steps_are_written_as_they_are_seen(tmp_path):
    table = np.arange(24, dtype=np.float32).reshape(4, 6)
    views = {"columns": table.T, "steps": table[::2, ::3], "backwards": table[::-1]}
    write_tensors(tmp_path / "file", views)
    found = load((tmp_path / "file").read_bytes())
    assert all(np.array_equal(found[name], view) for name, view in views.items())


def test_arrays_are_written_without_a_copy_of_them(tmp_path):
    table = np.zeros((1 << 13, 1 << 8), np.float32)
    tracemalloc.start()
    try:
        write_tensors(tmp_path / "file", {"table": table, "moment": table})
        assert tracemalloc.get_traced_memory()[1] < table.nbytes / 16
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["c8", ">f4", "U3", "M8[s]", "O"])
def test_a_type_that_the_format_does_not_know_is_refused_by_name(tmp_path, dtype):
    with pytest.raises(DataError, match=r"odd is .*, which safetensors"):
        write_tensors(tmp_path / "file", {"odd": np.zeros(2, dtype)})
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_may_be_any_is_taken_from_the_file(tmp_path):
    write_tensors(tmp_path / "file", {"rows": np.zeros((3, 2), np.int32)})
    (found,) = read_tensors(tmp_path / "file", {"rows": (np.int32, (None, 2))}).values()
    assert found.shape == (3, 2)
    with pytest.raises(ModelFileError, match=r"rows is I32\[3, 2\], expected int32\[any, 4\]"):
        read_tensors(tmp_path / "file", {"rows": (np.int32, (None, 4))})
    with pytest.raises(ModelFileError, match=r"rows is I32\[3, 2\], expected int32\[any\]"):
        read_tensors(tmp_path / "file", {"rows": (np.int32, (None,))})
    with pytest.raises(ModelFileError, match=r"expected uint16\[any, 2\]"):
        read_tensors(tmp_path / "file", {"rows": (np.uint16, (None, 2))})


pieces = st.lists(arrays.arrays(np.int32, st.integers(0, 9)), max_size=5)


@given(pieces, arrays.arrays(np.uint64, st.integers(0, 4)))
def test_an_array_that_grew_gives_the_file_of_a_whole_one_but_for_spaces(path, pieces, ids):
    beside = {"ids": ids, "a": np.arange(3)}
    layout = {name: (one.dtype, one.shape) for name, one in beside.items()}
    with growing_tensor(path, "rows", np.int32, beside=layout) as file:
        for piece in pieces:
            file.append(piece)
        file.finish(beside)
    grown = path.read_bytes()
    whole = {**beside, "rows": np.concatenate([np.zeros(0, np.int32), *pieces])}
    expected = save(whole)
    assert header_and_data(grown) == header_and_data(expected)
    found = read_tensors(path, {name: (one.dtype, one.shape) for name, one in whole.items()})
    assert all(found[name].flags.aligned for name in whole)
    assert {name: one.tolist() for name, one in load(grown).items()} == {
        name: one.tolist() for name, one in whole.items()
    }


def header_and_data(content):
    end = 8 + int.from_bytes(content[:8], "little")
    assert end % 8 == 0
    return json.loads(content[8:end]), content[end:]


def test_what_grows_must_lie_at_the_end(tmp_path):
    for name, dtype in (("a", np.int32), ("z", np.int64)):
        with (
            pytest.raises(ValueError, match=f"{name}, which grows, must come last"),
            growing_tensor(tmp_path / "f", name, dtype, beside={"b": (np.int32, (1,))}),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_not_finished_is_none(tmp_path):
    (tmp_path / "f").write_bytes(b"older")
    with (
        pytest.raises(ValueError, match=r"finish\(\) was not called"),
        growing_tensor(tmp_path / "f", "x", np.int32, beside={}) as file,
    ):
        file.append(np.zeros(3, np.int32))
    assert [found.name for found in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"older"


@pytest.mark.parametrize("piece", [np.zeros(3), np.zeros((3, 1), np.int32)])
def test_a_piece_of_another_kind_is_refused(tmp_path, piece):
    with (
        pytest.raises(DataError, match="x grows by flat int32, not by"),
        growing_tensor(tmp_path / "f", "x", np.int32, beside={}) as file,
    ):
        file.append(piece)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("beside", [{}, {"ids": np.zeros(3, np.uint64)}, {"ids": np.zeros(2)}])
def test_other_arrays_than_were_announced_are_refused(tmp_path, beside):
    with (
        pytest.raises(DataError, match="announced were"),
        growing_tensor(tmp_path / "f", "x", np.int32, beside={"ids": (np.uint64, (2,))}) as file,
    ):
        file.finish(beside)
    assert list(tmp_path.iterdir()) == []
