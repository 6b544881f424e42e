"""Logits that another teacher made: matched by text, labels by name, gaps left out and stated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import LABELS, TOPICS

from sparsedistill.errors import DataError
from storage import SourceError
from tasks.given_logits import read_given_logits
from tasks.logit_file import read_logits
from tasks.shards import read_shard


def oracle(text: str, labels: Sequence[str] = LABELS) -> list[float]:
    """How many words of each topic a text has: a teacher that is always right."""
    words = text.split()
    return [float(sum(word in TOPICS[label].split() for word in words)) for label in labels]


def write_given(
    path: Path,
    texts: Sequence[str],
    values: Sequence[Sequence[float] | None] | None = None,
    *,
    column: str = "logits",
    labels: Sequence[str] | None = LABELS,
) -> Path:
    if values is None:
        values = [oracle(text, labels or LABELS) for text in texts]
    table = pa.table({"text": texts, column: pa.array(values, pa.list_(pa.float32()))})
    if labels is not None:
        table = table.replace_schema_metadata({"label_names": json.dumps(list(labels))})
    pq.write_table(table, path)
    return path


def every_text(data: Path) -> list[str]:
    found = (data / "corpus.txt").read_text().splitlines()
    for split in ("train", "dev", "test"):
        lines = (data / f"{split}.csv").read_text().splitlines()[1:]
        found += [line.partition(",")[0] for line in lines]
    return found


def given(workshop: Workshop, stage: str = "logits", **settings: object):
    tables = {"teacher": None, "logits": {"path": "given.parquet", **settings}}
    return workshop.make(stage, **tables)


def test_every_row_gets_the_logits_of_its_text(workshop: Workshop):
    texts = every_text(workshop.data)
    write_given(workshop.data / "given.parquet", texts[::-1])
    made = given(workshop)
    assert "teacher" not in made
    for artifact in made["logits"]:
        shard = read_shard(workshop.store, artifact.manifest.inputs["texts"][0])
        ids, values = read_logits(artifact)
        assert ids.tolist() == shard.ids.tolist()
        assert values.tolist() == [oracle(text) for text in shard.texts]
        assert artifact.statistics["covered"] == 1.0


def test_columns_in_another_order_are_sorted_by_name(workshop: Workshop):
    order = LABELS[::-1]
    write_given(workshop.data / "given.parquet", every_text(workshop.data), labels=order)
    artifact = given(workshop)["logits"][0]
    shard = read_shard(workshop.store, artifact.manifest.inputs["texts"][0])
    assert read_logits(artifact)[1].tolist() == [oracle(text) for text in shard.texts]


def test_the_order_may_be_given_in_the_configuration(workshop: Workshop):
    path = workshop.data / "given.parquet"
    texts = every_text(workshop.data)
    write_given(path, texts, [oracle(t, LABELS[::-1]) for t in texts], labels=None)
    artifact = given(workshop, labels=list(LABELS[::-1]))["logits"][0]
    shard = read_shard(workshop.store, artifact.manifest.inputs["texts"][0])
    assert read_logits(artifact)[1].tolist() == [oracle(text) for text in shard.texts]


def test_probabilities_become_their_logarithms(workshop: Workshop):
    texts = every_text(workshop.data)
    shares = np.array([oracle(text) for text in texts])
    shares /= shares.sum(axis=1, keepdims=True)
    path = workshop.data / "given.parquet"
    write_given(path, texts, shares.tolist(), column="probabilities")
    artifact = given(workshop, dtype="float32")["logits"][0]
    shard = read_shard(workshop.store, artifact.manifest.inputs["texts"][0])
    truth = np.array([oracle(text) for text in shard.texts])
    truth /= truth.sum(axis=1, keepdims=True)
    back = np.exp(read_logits(artifact)[1])
    np.testing.assert_allclose(back, truth, atol=2e-6)


def test_rows_that_are_not_covered_are_left_out_and_the_share_is_stated(workshop: Workshop):
    texts = every_text(workshop.data)
    write_given(workshop.data / "given.parquet", texts[:150] + texts[600:])
    made = given(workshop, "student")
    shares = [one.statistics["covered"] for one in made["logits"]]
    assert shares == [0.75, 0.0, 0.0, 1.0, 1.0, 1.0]
    examples = {one.statistics["variant"]: one.statistics["examples"] for one in made["student"]}
    assert examples == {"scratch": 120, "kd_private": 150, "kd": 270}


def test_the_report_states_the_share_of_the_corpus_and_leaves_the_teacher_out(workshop: Workshop):
    """Rows of test without logits leave nothing that the student could be compared with."""
    texts = every_text(workshop.data)
    write_given(workshop.data / "given.parquet", texts[:300])
    made = workshop.make(
        "report",
        teacher=None,
        logits={"path": "given.parquet"},
        student={"baselines": []},
        baseline={"enabled": False},
    )
    summary = made["report"][0].read_json("summary.json")
    assert summary["corpus"]["covered"] == 0.5
    assert [row["model"] for row in summary["results"]] == ["dan_kd", "dan_kd_ft"]
    assert {row["agreement"] for row in summary["results"]} == {None}


def test_logits_that_cover_nothing_are_refused_before_training(workshop: Workshop):
    write_given(workshop.data / "given.parquet", ["a text that is nowhere"])
    with pytest.raises(DataError, match=r"\[logits\] path"):
        given(workshop, "student")


def test_of_two_rows_with_one_text_the_first_counts(workshop: Workshop):
    text = every_text(workshop.data)[0]
    path = write_given(workshop.data / "g.parquet", [text, text], [[1, 0, 0], [0, 1, 0]])
    found = read_given_logits([str(path)], labels=LABELS, given_labels=None)
    assert found.logits.tolist() == [[1, 0, 0]]


def test_a_file_rewritten_in_place_is_read_again_by_the_same_process(workshop: Workshop):
    path = workshop.data / "given.parquet"
    texts = every_text(workshop.data)
    write_given(path, texts)
    before = read_logits(given(workshop)["logits"][0])[1]
    write_given(path, texts, [[-v for v in oracle(text)] for text in texts])
    after = read_logits(given(workshop)["logits"][0])[1]
    np.testing.assert_array_equal(after, -before)


def test_a_missing_file_is_refused_at_once(workshop: Workshop):
    with pytest.raises(SourceError, match=r"given\.parquet: no such file"):
        given(workshop)


def test_a_file_of_another_format_is_refused_by_name(workshop: Workshop):
    (workshop.data / "given.parquet").write_text("text,logits\n")
    with pytest.raises(DataError, match=r"given\.parquet: not a Parquet file"):
        given(workshop)


def test_wrong_columns_name_those_there_are(tmp_path: Path):
    pq.write_table(pa.table({"sentence": ["x"], "score": [1.0]}), tmp_path / "g.parquet")
    message = r"g\.parquet: needs the columns text and logits.*\['sentence', 'score'\]"
    with pytest.raises(DataError, match=message):
        read_given_logits([str(tmp_path / "g.parquet")], labels=LABELS, given_labels=None)


def test_labels_that_are_nowhere_stated_are_asked_for(tmp_path: Path):
    path = write_given(tmp_path / "g.parquet", ["x"], [[1, 0, 0]], labels=None)
    with pytest.raises(DataError, match=r"does not say which column is which label; .*\[logits\]"):
        read_given_logits([str(path)], labels=LABELS, given_labels=None)


def test_other_labels_show_both_sets(tmp_path: Path):
    path = write_given(tmp_path / "g.parquet", ["x"], [[1, 0]], labels=["no", "yes"])
    with pytest.raises(DataError, match=r"its labels are \['no', 'yes'\], the task's are \['gard"):
        read_given_logits([str(path)], labels=LABELS, given_labels=None)


def test_values_that_are_not_finite_name_the_row(tmp_path: Path):
    values = [[1, 0, 0], [0, float("nan"), 0], [0, 0, float("inf")]]
    path = write_given(tmp_path / "g.parquet", ["x", "y", "z"], values)
    with pytest.raises(DataError, match=r"g\.parquet: row 2 is not finite: .*\(2 such"):
        read_given_logits([str(path)], labels=LABELS, given_labels=None)


def test_a_row_with_too_few_values_is_named(tmp_path: Path):
    path = write_given(tmp_path / "g.parquet", ["x", "y"], [[1, 0, 0], [1, 0]])
    with pytest.raises(DataError, match=r"g\.parquet: row 2 does not have 3 values"):
        read_given_logits([str(path)], labels=LABELS, given_labels=None)


def test_a_row_without_values_is_named(tmp_path: Path):
    path = write_given(tmp_path / "g.parquet", ["x", "y"], [[1, 0, 0], None])
    with pytest.raises(DataError, match=r"g\.parquet: row 2 does not have 3 values"):
        read_given_logits([str(path)], labels=LABELS, given_labels=None)


def test_a_value_that_is_missing_inside_a_row_is_not_finite(tmp_path: Path):
    path = write_given(tmp_path / "g.parquet", ["x"], [[1, None, 0]])
    with pytest.raises(DataError, match=r"g\.parquet: row 1 is not finite"):
        read_given_logits([str(path)], labels=LABELS, given_labels=None)


def test_values_that_are_no_lists_are_refused_by_name(tmp_path: Path):
    table = pa.table({"text": ["x"], "logits": [1.0]})
    names = {"label_names": json.dumps(LABELS)}
    pq.write_table(table.replace_schema_metadata(names), tmp_path / "g.parquet")
    with pytest.raises(DataError, match=r"g\.parquet: "):
        read_given_logits([str(tmp_path / "g.parquet")], labels=LABELS, given_labels=None)


def test_a_text_that_is_missing_is_refused_by_name(tmp_path: Path):
    path = write_given(tmp_path / "g.parquet", ["x", None], [[1, 0, 0], [1, 0, 0]])
    with pytest.raises(DataError, match=r"g\.parquet: row 2"):
        read_given_logits([str(path)], labels=LABELS, given_labels=None)


def test_texts_that_are_no_strings_are_refused_by_name(tmp_path: Path):
    table = pa.table({"text": [1], "logits": [[1.0, 0.0, 0.0]]})
    names = {"label_names": json.dumps(LABELS)}
    pq.write_table(table.replace_schema_metadata(names), tmp_path / "g.parquet")
    with pytest.raises(DataError, match=r"g\.parquet: "):
        read_given_logits([str(tmp_path / "g.parquet")], labels=LABELS, given_labels=None)


@pytest.mark.parametrize("share", [-0.5, 1.5])
def test_probabilities_outside_their_range_are_refused(tmp_path: Path, share: float):
    path = write_given(tmp_path / "g.parquet", ["x"], [[share, 0, 0]], column="probabilities")
    with pytest.raises(DataError, match="the column probabilities has values outside 0 to 1"):
        read_given_logits([str(path)], labels=LABELS, given_labels=None)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 3), pa.large_list(pa.float64())])
def test_every_kind_of_list_is_read(tmp_path: Path, kind: pa.DataType):
    table = pa.table({"text": ["x", "y"], "logits": pa.array([[1, 2, 3], [4, 5, 6]], kind)})
    names = {"label_names": json.dumps(LABELS)}
    pq.write_table(table.replace_schema_metadata(names), tmp_path / "g.parquet")
    found = read_given_logits([str(tmp_path / "g.parquet")], labels=LABELS, given_labels=None)
    assert sorted(found.logits.tolist()) == [[1, 2, 3], [4, 5, 6]]


def test_labels_in_a_wrong_order_are_found_out_before_training(workshop: Workshop):
    write_given(workshop.data / "given.parquet", every_text(workshop.data), labels=None)
    turned = [*LABELS[1:], LABELS[0]]
    with pytest.raises(DataError, match=r"commonest label alone .* check the order of \[logits\]"):
        given(workshop, "student", labels=turned)
