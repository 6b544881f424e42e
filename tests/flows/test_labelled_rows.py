"""Labels in files: names, or numbers that stand for them, as in training."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.labelled_rows import read_labelled_texts
from sparsedistill.errors import DataError

STARS = ("1", "2", "3")
NAMES = ("bad", "good")


def write(path: Path, labels: list[object], names: list[str] | None = None) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": "x", "label": y}) + "\n" for y in labels))
    elif path.suffix == ".csv":
        path.write_text("text,label\n" + "".join(f"x,{y}\n" for y in labels))
    else:
        table = pa.table({"text": ["x"] * len(labels), "label": labels})
        metadata = {"label_names": json.dumps(names)} if names else None
        pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
@pytest.mark.parametrize(
    ("classes", "labels", "expected"),
    [
        (STARS, [1, 2, 3, 1], [0, 1, 2, 0]),
        (STARS, ["1", "2", "3", "1"], [0, 1, 2, 0]),
        (("-1", "0", "1"), [-1, 0, 1], [0, 1, 2]),
        (("2", "1", "0"), [0, 1, 2], [2, 1, 0]),
        (NAMES, [0, 1, 1], [0, 1, 1]),
        (NAMES, ["good", "bad"], [1, 0]),
        # A name comes before a number that is written alike.
        (("x", "0"), ["0", "x"], [1, 0]),
    ],
)
def test_a_number_stands_for_the_class_of_that_name_or_else_of_that_number(
    tmp_path: Path, name: str, classes: tuple[str, ...], labels: list[object], expected: list[int]
):
    file = write(tmp_path / name, labels)
    assert read_labelled_texts(file, classes).truth.tolist() == expected


@pytest.mark.parametrize("classes", [STARS, ("3", "2", "1")])
def test_what_a_parquet_file_says_of_its_numbers_comes_first(
    tmp_path: Path, classes: tuple[str, ...]
):
    file = write(tmp_path / "x.parquet", [0, 1, 2], ["2", "3", "1"])
    truth = read_labelled_texts(file, classes).truth.tolist()
    assert [classes[one] for one in truth] == ["2", "3", "1"]


@pytest.mark.parametrize("label", [True, None, 1.0, 0, 4, ["1"], {"1": 1}, "01"])
def test_what_is_no_label_of_the_model_is_refused_with_its_row(tmp_path: Path, label: object):
    file = write(tmp_path / "x.jsonl", ["1", label])
    with pytest.raises(DataError, match=r"row 2 has the label .* none of the model's"):
        read_labelled_texts(file, (*STARS,))


@pytest.mark.parametrize("label", [True, None])
def test_a_value_is_no_label_though_its_name_be_one(tmp_path: Path, label: object):
    file = write(tmp_path / "x.jsonl", [label])
    with pytest.raises(DataError, match="row 1 has the label"):
        read_labelled_texts(file, ("True", "None"))
