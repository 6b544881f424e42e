import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsedistill.errors import DataError
from sparsedistill.text.buffers import TextBuffer

ROWS = ["", "ascii", "Straße", "日本語", "🙂", ""]


@given(st.lists(st.text(max_size=10), max_size=6))
def test_strings_come_back_as_they_went_in(strings):
    buffer = TextBuffer.from_strings(strings)
    assert list(buffer) == strings
    assert len(buffer) == len(strings)
    assert buffer.nbytes == sum(len(text.encode()) for text in strings)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_an_arrow_column_is_read_where_it_lies_also_a_slice_of_one(kind):
    array = pa.array(ROWS, kind)
    assert list(TextBuffer.from_arrow(array)) == ROWS
    assert list(TextBuffer.from_arrow(array[2:5])) == ROWS[2:5]
    assert list(TextBuffer.from_arrow(pa.chunked_array([array, array[1:2]]))) == [*ROWS, "ascii"]
    assert list(TextBuffer.from_arrow(pa.chunked_array([], kind))) == []
    assert list(TextBuffer.from_arrow(array[:0])) == []
    assert list(TextBuffer.from_arrow(pa.array([""], kind))) == [""]


def test_the_bytes_of_an_arrow_array_are_not_copied():
    array = pa.array(ROWS, pa.large_string())
    buffer = TextBuffer.from_arrow(array)
    assert buffer.data.__array_interface__["data"][0] == array.buffers()[2].address


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1]), "int64"),
        (pa.chunked_array([[1.5]]), "double"),
        (pa.array(["a", None]), "row 1 is null"),
        (pa.array([b"a", b"\xff"]).view(pa.string()), "UTF-8"),
    ],
)
def test_a_column_that_is_not_whole_text_is_refused_with_its_reason(column, message):
    with pytest.raises(DataError, match=message):
        TextBuffer.from_arrow(column)


def test_a_lone_surrogate_is_named_by_row_and_character():
    with pytest.raises(DataError, match=r"row 12 has the lone surrogate U\+D800 at character 1"):
        TextBuffer.from_strings(["fine", "ö", "x\ud800"], first_row=10)


def test_a_row_that_is_no_string_is_named():
    with pytest.raises(DataError, match="row 1 is a float"):
        TextBuffer.from_strings(["a", float("nan")])


def test_offsets_that_leave_the_data_or_descend_are_refused():
    data = np.zeros(4, np.uint8)
    for offsets in ([0, 5], [3, 2], [-1, 2], []):
        with pytest.raises(DataError):
            TextBuffer(data, np.array(offsets, np.int64))


def test_take_and_slice_and_concat_keep_the_rows():
    buffer = TextBuffer.from_strings(ROWS)
    assert list(buffer.take(np.array([3, 1, 1]))) == ["日本語", "ascii", "ascii"]
    assert list(buffer.slice(1, 3)) == ROWS[1:3]
    assert list(buffer.slice(4, 99)) == ROWS[4:]
    assert list(TextBuffer.concat([buffer.slice(1, 3), buffer])) == ROWS[1:3] + ROWS
    assert buffer[-2] == "🙂"
    with pytest.raises(IndexError):
        buffer[6]


def test_inputs_cannot_be_changed_through_the_buffer():
    with pytest.raises(ValueError, match="read-only"):
        TextBuffer.from_strings(["a"]).data[0] = 1
