import unicodedata

import numpy as np
import pytest

from sparsedistill.text import unicode


@pytest.mark.skipif(
    unicodedata.unidata_version != unicode.shipped_table().version,
    reason="this Python has another Unicode version than the shipped table",
)
def test_the_shipped_table_is_what_this_python_says():
    built, shipped = unicode.build_table(), unicode.shipped_table()
    assert built.version == shipped.version
    np.testing.assert_array_equal(built.pages, shipped.pages)
    np.testing.assert_array_equal(built.entries, shipped.entries)


def test_writing_and_reading_the_table_gives_it_back(tmp_path, monkeypatch):
    table = unicode.shipped_table()
    unicode.write_table(table, tmp_path / "table.zst")
    monkeypatch.setattr(unicode, "SHIPPED", tmp_path / "table.zst")
    again = unicode.shipped_table.__wrapped__()
    np.testing.assert_array_equal(again.entries, table.entries)
    np.testing.assert_array_equal(again.pages, table.pages)
    assert again.version == table.version


@pytest.mark.parametrize(
    ("character", "cased", "ignorable"),
    [("a", 1, 0), ("1", 0, 0), ("'", 0, 1), ("\u0301", 0, 1), ("\u0345", 0, 1), ("Σ", 1, 0)],
)
def test_case_properties_are_those_of_the_standard(character, cased, ignorable):
    # U+0345 is both; ignorable comes first in CPython, so only that is kept.
    table, code = unicode.shipped_table(), ord(character)
    entry = int(table.entries[table.pages[code // 256], code % 256])
    assert (entry >> unicode.CASED_BIT & 1, entry >> unicode.IGNORABLE_BIT & 1) == (
        cased,
        ignorable,
    )
