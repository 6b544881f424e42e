"""Labelled data: what is stored of it, and what is refused before anything is computed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import LABELS, write_labelled

from sparsedistill.errors import DataError
from storage import SourceError
from tasks.dataset import DatasetConfig, Split, read_splits
from tasks.shards import read_texts_of

TRAIN = [("one text", "a"), ("two texts", "b"), ("three texts", "a"), ("four texts", "b")]


def splits(directory: Path, **settings: object) -> dict[str, Split]:
    return read_splits(DatasetConfig.model_validate(settings), base=str(directory))


def written(directory: Path, content: str | bytes, name: str = "train.csv") -> str:
    data = content.encode() if isinstance(content, str) else content
    (directory / name).write_bytes(data)
    return name


def test_three_splits_are_stored_with_ids_texts_and_label_indices(workshop: Workshop):
    made = workshop.make("dataset")["dataset"]
    train = read_texts_of(made[0])
    first = (workshop.data / "train.csv").read_text().splitlines()[1]
    assert first == f"{train.texts[0]},{LABELS[train.labels[0]]}"
    assert train.label_names == LABELS
    assert [len(read_texts_of(one)) for one in made] == [120, 40, 40]
    assert len(set(train.ids.tolist())) == 120


def test_statistics_tell_rows_and_how_many_of_each_label(workshop: Workshop):
    train = workshop.make("dataset")["dataset"][0]
    assert train.statistics["rows"] == 120
    assert train.statistics["labels"] == list(LABELS)
    assert sum(train.statistics["rows_per_label"]) == 120


def test_a_file_rewritten_with_the_same_rows_is_the_same_split(workshop: Workshop):
    before = workshop.keys("dataset")
    old = workshop.data / "train.csv"
    old.rename(workshop.data / "moved.csv")
    assert workshop.keys("dataset", dataset={"train": "moved.csv"}) == before


def test_the_file_format_is_no_part_of_a_split(workshop: Workshop):
    before = workshop.keys("dataset")
    rows = [line.split(",") for line in (workshop.data / "train.csv").read_text().splitlines()[1:]]
    table = pa.table({"text": [t for t, _ in rows], "label": [label for _, label in rows]})
    pq.write_table(table, workshop.data / "train.parquet")
    assert workshop.keys("dataset", dataset={"train": "train.parquet"}) == before


def test_one_changed_label_makes_another_split(workshop: Workshop):
    before = workshop.keys("dataset")
    path = workshop.data / "dev.csv"
    lines = path.read_text().splitlines()
    other = next(label for label in LABELS if not lines[1].endswith(label))
    lines[1] = f"{lines[1].partition(',')[0]},{other}"
    path.write_text("\n".join(lines) + "\n")
    after = workshop.keys("dataset")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_without_dev_a_share_of_train_is_put_aside_in_proportion(tmp_path: Path):
    rows = [(f"text {i}", "ab"[i % 4 == 0]) for i in range(200)]
    write_labelled(tmp_path / "train.csv", rows)
    found = splits(tmp_path, train="train.csv", dev_share=0.2)
    assert Counter(found["dev"].labels) == {0: 30, 1: 10}
    assert Counter(found["train"].labels) == {0: 120, 1: 40}
    assert set(found["dev"].texts).isdisjoint(found["train"].texts)
    assert found["test"].texts == found["dev"].texts


def test_rows_of_one_text_are_never_put_on_both_sides(tmp_path: Path):
    rows = [(f"text {i // 3}", "ab"[i % 2]) for i in range(60)]
    rows += [(f"single {i}", "ab"[i % 2]) for i in range(20)]
    write_labelled(tmp_path / "train.csv", rows)
    found = splits(tmp_path, train="train.csv", dev_share=0.1)
    assert set(found["dev"].texts).isdisjoint(found["train"].texts)
    assert len(found["dev"].texts) == 8


def test_numbers_stand_for_the_names_in_the_parquet_metadata(tmp_path: Path):
    table = pa.table({"text": ["x", "y", "z"], "label": [1, 0, 1]})
    names = {"label_names": json.dumps(["cold", "warm"])}
    pq.write_table(table.replace_schema_metadata(names), tmp_path / "train.parquet")
    write_labelled(tmp_path / "dev.csv", [("v", "warm"), ("w", "cold")])
    found = splits(tmp_path, train="train.parquet", dev="dev.csv")
    assert found["train"].label_names == ("cold", "warm")
    assert found["train"].labels == [1, 0, 1]
    assert found["dev"].labels == [1, 0]


def test_files_with_labels_in_another_order_agree_by_name(tmp_path: Path):
    for name, names, labels in (("train", ["a", "b"], [0, 1, 1]), ("dev", ["b", "a"], [0, 1, 1])):
        table = pa.table({"text": [f"{name} {i}" for i in range(3)], "label": labels})
        metadata = {"label_names": json.dumps(names)}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / f"{name}.parquet")
    found = splits(tmp_path, train="train.parquet", dev="dev.parquet")
    assert found["train"].labels == [0, 1, 1]
    assert found["dev"].labels == [1, 0, 0]


def test_a_number_in_csv_and_in_parquet_is_one_label(tmp_path: Path):
    write_labelled(tmp_path / "train.csv", [("x", "0"), ("y", "1")])
    pq.write_table(pa.table({"text": ["v", "w"], "label": [1, 0]}), tmp_path / "dev.parquet")
    found = splits(tmp_path, train="train.csv", dev="dev.parquet")
    assert found["train"].label_names == ("0", "1")
    assert found["dev"].labels == [1, 0]


def test_configured_labels_give_the_order(tmp_path: Path):
    write_labelled(tmp_path / "train.csv", TRAIN)
    found = splits(tmp_path, train="train.csv", dev="train.csv", labels=["b", "a"])
    assert found["train"].labels == [1, 0, 1, 0]


def test_a_missing_file_is_named_with_the_nearest_that_is_there(tmp_path: Path):
    write_labelled(tmp_path / "train.csv", TRAIN)
    with pytest.raises(SourceError, match=r"trian\.csv: no such file; .*train\.csv"):
        splits(tmp_path, train="trian.csv")


def test_an_empty_file_is_refused_by_name(tmp_path: Path):
    with pytest.raises(SourceError, match=r"train\.csv: .*empty"):
        splits(tmp_path, train=written(tmp_path, ""))


def test_a_file_with_a_header_only_has_no_rows(tmp_path: Path):
    write_labelled(tmp_path / "dev.csv", TRAIN)
    with pytest.raises(DataError, match=r"train\.csv: train has no rows"):
        splits(tmp_path, train=written(tmp_path, "text,label\n"), dev="dev.csv")


def test_a_wrong_column_names_those_there_are(tmp_path: Path):
    name = written(tmp_path, "sentence,label\nx,a\n")
    with pytest.raises(SourceError, match=r"train\.csv, row 1: no column 'text'.*'sentence'"):
        splits(tmp_path, train=name)


def test_a_missing_label_names_its_row(tmp_path: Path):
    name = written(tmp_path, "text,label\nx,a\ny,\nz,b\n")
    with pytest.raises(SourceError, match=r"train\.csv, row 3: missing label"):
        splits(tmp_path, train=name)


def test_an_unknown_label_names_file_row_and_the_labels(tmp_path: Path):
    write_labelled(tmp_path / "train.csv", TRAIN)
    write_labelled(tmp_path / "dev.csv", [("u", "a"), ("v", "c")])
    with pytest.raises(DataError, match=r"dev\.csv: row 2 of dev has the label 'c'.*\['a', 'b'\]"):
        splits(tmp_path, train="train.csv", dev="dev.csv", labels=["a", "b"])


def test_one_class_only_is_nothing_to_tell_apart(tmp_path: Path):
    write_labelled(tmp_path / "train.csv", [("x", "a"), ("y", "a")])
    write_labelled(tmp_path / "dev.csv", [("z", "a")])
    with pytest.raises(DataError, match=r"train has one class only, \['a'\]"):
        splits(tmp_path, train="train.csv", dev="dev.csv")


def test_a_label_that_train_never_has_is_refused(tmp_path: Path):
    write_labelled(tmp_path / "train.csv", TRAIN)
    write_labelled(tmp_path / "dev.csv", [("z", "c")])
    with pytest.raises(DataError, match=r"train has no row of \['c'\]"):
        splits(tmp_path, train="train.csv", dev="dev.csv")


def test_invalid_utf8_names_its_row(tmp_path: Path):
    name = written(tmp_path, b"text,label\nfine,a\n\xff\xfe,b\n")
    with pytest.raises(SourceError, match=r"train\.csv, row 3: invalid UTF-8"):
        splits(tmp_path, train=name)


def test_a_nul_character_names_its_row(tmp_path: Path):
    name = written(tmp_path, b"text,label\nfine,a\nbro\0ken,b\n")
    with pytest.raises(SourceError, match=r"train\.csv, row 3: NUL character"):
        splits(tmp_path, train=name)


def test_a_line_of_ten_megabytes_names_its_row(tmp_path: Path):
    name = written(tmp_path, "text,label\nfine,a\n" + "x" * 10_000_000 + ",b\n")
    with pytest.raises(SourceError, match=r"train\.csv, row 3: longer than 1,048,576 bytes"):
        splits(tmp_path, train=name)


def test_a_train_too_small_for_a_dev_says_so(tmp_path: Path):
    write_labelled(tmp_path / "train.csv", TRAIN)
    with pytest.raises(DataError, match="train is too small to put 10% of it aside"):
        splits(tmp_path, train="train.csv")


def test_a_glob_is_no_split(tmp_path: Path):
    write_labelled(tmp_path / "one.csv", TRAIN)
    write_labelled(tmp_path / "two.csv", TRAIN)
    with pytest.raises(DataError, match=r"\*\.csv stands for 2 files; a split is one file"):
        splits(tmp_path, train="*.csv")


def test_labels_named_twice_are_refused():
    with pytest.raises(ValueError, match="labels needs at least two names, each once"):
        DatasetConfig(train="x.csv", labels=("a", "a"))


def test_a_file_that_changes_between_plan_and_writing_is_not_stored_under_its_old_digest(
    workshop: Workshop,
):
    from tasks import dataset

    job = workshop.jobs("dataset")[0]
    write_labelled(workshop.data / "train.csv", [("new text", LABELS[0]), ("b", LABELS[1])])
    write_labelled(workshop.data / "dev.csv", [("c", LABELS[0])])
    write_labelled(workshop.data / "test.csv", [("d", LABELS[1])])
    with pytest.raises(DataError, match="the train file changed while the run was reading it"):
        dataset.STAGE.run(job, workshop.store)
    assert workshop.store.artifacts("dataset") == []
