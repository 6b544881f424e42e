"""Bags in a file, written as they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.bags import Bags
from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.tensor_files import write_tensors
from tasks.bag_file import read_bags, write_bags

Texts = list[list[int]]


def bags_of(texts: Texts) -> Bags:
    offsets = np.cumsum([0, *map(len, texts)])
    return Bags(np.array([row for text in texts for row in text], np.int32), offsets)


def ids_of(first: int, texts: Texts) -> np.ndarray:
    return np.arange(first, first + len(texts), dtype=np.uint64)


@settings(deadline=None)
@given(texts=st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=12), data=st.data())
def test_what_is_read_is_what_came_however_it_was_cut(
    texts: Texts, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=3)))
    spans = list(zip([0, *cuts], [*cuts, len(texts)], strict=True))
    path = tmp_path_factory.mktemp("bags") / "bags.safetensors"
    parts = [(ids_of(a, texts[a:b]), bags_of(texts[a:b])) for a, b in spans]
    write_bags(path, parts, count=len(texts))
    ids, bags = read_bags(path)
    assert ids.tolist() == list(range(len(texts)))
    assert [bag.tolist() for bag in bags] == texts


def test_another_number_of_texts_than_was_said_leaves_no_file(tmp_path: Path):
    texts = [[1], [2, 3]]
    with pytest.raises(DataError, match="announced were"):
        write_bags(tmp_path / "bags", [(ids_of(0, texts), bags_of(texts))], count=3)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_whole_or_does_not_fit_together_is_refused(tmp_path: Path):
    path = tmp_path / "bags"
    texts = [[1], [2, 3]]
    write_bags(path, [(ids_of(0, texts), bags_of(texts))], count=2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="not a whole safetensors file"):
        read_bags(path)
    bags = bags_of(texts)
    arrays = {"ids": np.zeros(3, np.uint64), "offsets": bags.offsets, "rows": bags.rows}
    write_tensors(path, arrays)
    with pytest.raises(DataError, match="bags: 3 ids but 2 bags"):
        read_bags(path)
