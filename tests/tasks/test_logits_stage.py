"""The teacher's logits of every shard, and the gate that catches rows that are out of step."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.stages import Workshop
from helpers.tiny_task import LABELS
from safetensors.torch import load_file, save_file

from sparsedistill.errors import DataError
from sparsedistill.metrics import softmax
from sparsedistill.teacher.labelling import LabellingOptions, Teacher
from storage import Artifact, Recipe
from tasks import corpus, logits, student
from tasks.logit_file import FILE, aligned_logits, read_logits, write_logits
from tasks.logits import CONFIDENCE_BINS
from tasks.shards import open_input, read_shard
from tasks.stage import single_input
from tasks.teacher import MODEL_DIRECTORY


def labelled(
    made: dict[str, list[Artifact]], workshop: Workshop
) -> list[tuple[Artifact, Artifact]]:
    """Pairs of a shard of texts and its logits."""
    return [
        (open_input(workshop.store, one.manifest.inputs["texts"][0]), one) for one in made["logits"]
    ]


def test_every_shard_and_split_is_labelled_in_the_order_of_its_rows(stocked: Workshop):
    made = stocked.make("logits")
    teacher = Teacher(
        made["teacher"][0].directory() / MODEL_DIRECTORY,
        labels=LABELS,
        options=LabellingOptions(max_length=16, threads=1),
    )
    assert len(made["logits"]) == 6
    for shard, artifact in labelled(made, stocked):
        texts = read_shard(stocked.store, shard.as_input())
        ids, values = read_logits(artifact)
        assert ids.tolist() == texts.ids.tolist()
        np.testing.assert_allclose(values, teacher.logits(list(texts.texts)), atol=2e-3)


def test_the_file_says_whose_logits_and_which_label_each_column_is(stocked: Workshop):
    made = stocked.make("logits")
    metadata = pq.read_schema(made["logits"][0].path(FILE)).metadata
    assert json.loads(metadata[b"label_names"]) == list(LABELS)
    assert metadata[b"teacher"].decode() == made["teacher"][0].digest


def test_statistics_tell_rows_coverage_and_what_was_predicted(stocked: Workshop):
    made = stocked.make("logits")
    for _, artifact in labelled(made, stocked):
        assert artifact.statistics["covered"] == 1.0
        assert sum(artifact.statistics["predicted"]) == artifact.statistics["rows"]


def test_float16_is_stored_unless_asked_otherwise(stocked: Workshop):
    half = stocked.make("logits")["logits"][0]
    full = stocked.make("logits", logits={"dtype": "float32"})["logits"][0]
    kinds = [pq.read_schema(a.path(FILE)).field("logits").type for a in (half, full)]
    assert [kind.value_type for kind in kinds] == [pa.float16(), pa.float32()]
    np.testing.assert_allclose(read_logits(half)[1], read_logits(full)[1], atol=2e-3)


def test_float32_is_stored_where_float16_would_cost_accuracy(stocked: Workshop):
    (teacher,) = stocked.make("teacher")["teacher"]

    class Coarse:
        statistics = {**teacher.statistics, "float16_accuracy": 0.5}  # noqa: RUF012
        as_input = teacher.as_input

    config = stocked.config().logits
    (job,) = logits.jobs(config, [_shard(stocked)], Coarse(), threads=1)
    assert job.recipe.config["dtype"] == "float32"


def _shard(workshop: Workshop):
    return corpus.shards(workshop.make("corpus")["corpus"][0])[0]


def test_logits_that_are_not_finite_are_refused_with_the_row(
    workshop: Workshop, tiny_classifier: Path
):
    """The gate stands in the teacher stage already, so a broken teacher labels nothing."""
    directory = Path(shutil.copytree(tiny_classifier, workshop.data / "broken"))
    weights = load_file(directory / "model.safetensors")
    weights["bert.embeddings.LayerNorm.weight"][:] = 3e38  # finite, but not what follows
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="row 0: the teacher's logits are not finite: '"):
        workshop.make("logits", teacher={"checkpoint": "broken", "finetune": False})
    assert workshop.store.artifacts("logits") == []


def test_logits_too_large_for_float16_name_the_row_and_the_way_out(
    workshop: Workshop, tiny_classifier: Path
):
    directory = Path(shutil.copytree(tiny_classifier, workshop.data / "large"))
    weights = load_file(directory / "model.safetensors")
    weights["classifier.bias"] = torch.tensor([0.0, 1e6, 0.0])
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    large = {"checkpoint": "large", "finetune": False}
    with pytest.raises(DataError, match=r"row 0 \(id \d+\) are not finite as float16.*float32"):
        workshop.make("logits", teacher=large, logits={"dtype": "float16"})
    stored = workshop.make("logits", teacher=large)["logits"][0]
    assert pq.read_schema(stored.path(FILE)).field("logits").type.value_type == pa.float32()


def test_shuffled_dev_logits_trip_the_gate_before_a_student_is_trained(stocked: Workshop):
    made = stocked.make("logits")
    (teacher,) = made["teacher"]
    expected = teacher.statistics["dev_accuracy"]
    job = next(j for j in stocked.jobs("student") if j.recipe.config["variant"] == "kd")
    dev = read_shard(stocked.store, single_input(job.recipe, "dev"))
    good = open_input(stocked.store, single_input(job.recipe, "dev_logits"))
    logits.check_alignment(good, dev, expected=expected, tolerance=0.002)
    rolled = np.roll(read_logits(good)[1], 1, axis=0)
    bad = _stored(stocked, dev.ids, rolled)
    with pytest.raises(DataError, match=r"rows or labels are out of step\. Remove logits/"):
        logits.check_alignment(bad, dev, expected=expected, tolerance=0.002)
    trained = {m.key for m in stocked.store.artifacts("student")}
    moved = _with_dev_logits(job, bad)
    with pytest.raises(DataError, match="rows or labels are out of step"):
        student.STAGE.run(moved, stocked.store)
    assert {m.key for m in stocked.store.artifacts("student")} == trained


def _stored(workshop: Workshop, ids, values) -> Artifact:
    """Put some logits into the store, as if the stage had written them."""
    with workshop.store.create(Recipe("logits", 0, {"made by": "a test"})) as writer:
        write_logits(
            writer.path(FILE), ids, values, dtype="float32", labels=list(LABELS), whose="x"
        )
    return writer.artifact


def _with_dev_logits(job, artifact: Artifact):
    inputs = {**job.recipe.inputs, "dev_logits": (artifact.as_input(),)}
    return replace(job, recipe=replace(job.recipe, inputs=inputs))


def test_rows_without_logits_are_told_apart_by_nan(stocked: Workshop):
    made = stocked.make("logits")
    dev = read_shard(stocked.store, made["dataset"][1].as_input())
    ids, values = read_logits(made["logits"][-2])
    found = aligned_logits(_stored(stocked, ids[5:], values[5:]), dev)
    assert np.isnan(found[:5]).all()
    np.testing.assert_array_equal(found[5:], values[5:])


def test_of_many_classes_the_best_few_are_kept_and_the_rest_as_a_whole(stocked: Workshop):
    whole = stocked.make("logits", logits={"dtype": "float32"})["logits"][0]
    few = stocked.make("logits", logits={"dtype": "float32", "top_k": 1})["logits"][0]
    schema = pq.read_schema(few.path(FILE))
    assert schema.names == ["id", "classes", "logits", "rest"]
    assert schema.field("logits").type.list_size == 1
    (ids, before), (same_ids, after) = read_logits(whole), read_logits(few)
    assert ids.tolist() == same_ids.tolist()
    np.testing.assert_allclose(after.max(axis=1), before.max(axis=1))
    np.testing.assert_allclose(softmax(after).max(axis=1), softmax(before).max(axis=1), atol=1e-6)
    assert after.argmax(axis=1).tolist() == before.argmax(axis=1).tolist()
    assert stocked.make("report", logits={"top_k": 1})["report"]


def test_as_many_as_there_are_classes_is_all_of_them(stocked: Workshop):
    stored = stocked.make("logits", logits={"top_k": len(LABELS)})["logits"][0]
    assert pq.read_schema(stored.path(FILE)).names == ["id", "logits"]


def test_bytes_of_like_weight_lie_together_on_disk(stocked: Workshop):
    for top_k in (None, 1):
        path = stocked.make("logits", logits={"top_k": top_k})["logits"][0].path(FILE)
        group = pq.read_metadata(path).row_group(0)
        columns = {
            group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)
        }
        assert "BYTE_STREAM_SPLIT" in columns["logits.list.element"].encodings
        assert {column.compression for column in columns.values()} == {"ZSTD"}


def test_the_file_counts_its_rows_and_statistics_how_sure_the_teacher_is(stocked: Workshop):
    artifact = stocked.make("logits")["logits"][0]
    ids, values = read_logits(artifact)
    assert int(pq.read_schema(artifact.path(FILE)).metadata[b"rows"]) == len(ids)
    confidence = artifact.statistics["confidence"]
    assert len(confidence) == CONFIDENCE_BINS
    assert sum(confidence) == len(ids)
    greatest = softmax(values).max(axis=1)
    assert abs(sum(confidence[14:]) - int((greatest >= 0.7).sum())) <= 2  # float16 moves a few
    assert artifact.statistics["quarantined"] == {}


def test_windows_say_something_else_of_long_texts_only(stocked: Workshop):
    short = stocked.make("logits")["logits"][0]
    teacher = {"max_length": 10, "long_texts": "windows", "overlap": 2}
    windows = stocked.make("logits", teacher=teacher)["logits"][0]
    cut = stocked.make("logits", teacher={"max_length": 10})["logits"][0]
    assert windows.key not in {short.key, cut.key}
    assert np.isfinite(read_logits(windows)[1]).all()


def test_another_engine_may_miss_the_teachers_accuracy_by_a_little_more(stocked: Workshop):
    ours, theirs = stocked.config().logits, stocked.config(logits={"engine": "openvino"}).logits
    assert [ours.tolerance(how) for how in ("float32", "bfloat16", None)] == [0.002] * 3
    assert [theirs.tolerance(how) for how in ("float32", "bfloat16")] == [0.002, 0.01]
