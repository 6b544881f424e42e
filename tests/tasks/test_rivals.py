"""Rivals of the DAN: what they read, what they learn from, and that they are only compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.stages import Workshop
from safetensors.numpy import load_file, save_file

from dashboards.terminal import results_table
from flows.inline import run_inline
from flows.plan import make_plan
from sparsedistill.errors import ConfigError, DataError, ModelFileError
from sparsedistill.metrics import accuracy
from sparsedistill.students.tokens import teacher_embeddings, token_ids
from sparsedistill.teacher.checkpoint import load_tokenizer
from sparsedistill.training.loop import Checkpointing
from storage import Artifact
from tasks import student
from tasks.report_file import REPORT_FILE
from tasks.shards import read_shard
from tasks.stage import Job
from tasks.student_file import FILE, read_rival, read_shape, read_student
from tasks.subword_examples import TokenFiles
from tasks.teacher import MODEL_DIRECTORY

SMALL = {"hidden": 8, "batch_size": 32, "learning_rate": 0.01, "epochs": 2}
BILSTM, CNN = {"architecture": "bilstm", **SMALL}, {"architecture": "cnn", **SMALL}
each_rival = pytest.mark.parametrize("rival", [BILSTM, CNN], ids=["bilstm", "cnn"])


def with_rivals(*rivals: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    return {"baselines": [], "rivals": list(rivals), **settings}


def rival_job(workshop: Workshop, rival: Mapping[str, Any], **settings: Any) -> Job:
    return workshop.jobs("student", student=with_rivals(rival, **settings))[-1]


def teacher_model(made: Mapping[str, list[Artifact]]) -> Path:
    return made["teacher"][0].directory() / MODEL_DIRECTORY


def test_rivals_come_after_the_dans_one_for_each_seed(stocked: Workshop):
    settings = with_rivals(CNN, BILSTM, baselines=["scratch"], seeds=[0, 7])
    assert [job.label for job in stocked.jobs("student", student=settings)] == [
        "scratch seed 0", "scratch seed 7", "kd seed 0", "kd seed 7",
        "kd_cnn seed 0", "kd_cnn seed 7", "kd_bilstm seed 0", "kd_bilstm seed 7",
    ]  # fmt: skip


def test_a_run_compares_rivals_and_packages_a_dan(stocked: Workshop):
    config = stocked.config(student=with_rivals(BILSTM, CNN, seeds=[0, 1]))
    result = run_inline(config)
    made, summary = result.artifacts, result.summary()
    results = {row["model"]: row for row in summary["results"]}
    assert list(results) == [
        "tfidf_lr", "dan_kd", "bilstm_kd", "cnn_kd", "dan_kd_ft", "teacher",
    ]  # fmt: skip
    for model, title in (("bilstm_kd", "BiLSTM (KD)"), ("cnn_kd", "CNN (KD)")):
        row = results[model]
        assert row["title"] == title
        assert row["accuracy"] > 0.8  # chance is a third
        assert row["agreement"] > 0.8
        assert row["macro_f1"] > 0.8
        assert row["seeds"] == 2
        assert row["accuracy_spread"] is not None
        assert row["texts_per_second"] > 0
    rivals = [one for one in made["student"] if one.statistics["variant"] != "kd"]
    assert {one.entry(FILE).bytes for one in rivals} == {
        results["bilstm_kd"]["bytes"], results["cnn_kd"]["bytes"],
    }  # fmt: skip
    # What is tuned, folded and packaged are DANs.
    tuned = {one.manifest.inputs["student"][0].key for one in made["finetune"]}
    assert tuned == {one.key for one in made["student"]} - {one.key for one in rivals}
    curves = {(run["model"], run["seed"]): run["points"] for run in summary["training"]}
    assert set(curves) == {
        (model, seed) for model in ("dan_kd", "bilstm_kd", "cnn_kd") for seed in (0, 1)
    }
    assert [point["epoch"] for point in curves["bilstm_kd", 1]] == [1, 2]
    page = made["report"][0].path(REPORT_FILE).read_text("utf-8")
    shown = [str(cell) for cell in results_table(summary).columns[0].cells]
    for title in ("BiLSTM (KD)", "CNN (KD)"):
        assert title in shown
        assert page.count(title) >= 3  # in the table, by its point, at its curves
    assert run_inline(config).computed() == 0


def test_a_rival_learns_from_the_texts_of_the_distilled_dan_by_their_tokens(stocked: Workshop):
    made = stocked.make("student", student=with_rivals(CNN))
    dan, rival = made["student"]
    inputs = rival.manifest.inputs
    assert inputs["logits"] == dan.manifest.inputs["logits"]
    assert rival.statistics["examples"] == dan.statistics["examples"] == 720
    seen = {one.key for some in inputs.values() for one in some}
    assert not seen & {one.key for stage in ("features", "vocabulary") for one in made[stage]}
    assert made["dataset"][2].key not in seen
    assert rival.statistics["updates"] == 2 * 23
    same = ("objective", "temperature", "decay", "betas", "weight_decay")
    assert {k: rival.manifest.config[k] for k in same} == {k: dan.manifest.config[k] for k in same}


def test_neither_the_vocabulary_nor_a_dans_sizes_make_a_rival_stale(stocked: Workshop):
    key = rival_job(stocked, CNN).recipe.key
    other = {"vocabulary": {"size": 500}, "student": with_rivals(CNN, width=4, epochs=9)}
    assert stocked.jobs("student", **other)[-1].recipe.key == key
    (alone,), (dan, _) = (
        stocked.keys("student", student=with_rivals(*rivals)) for rivals in ((), (CNN,))
    )
    assert alone == dan
    changes = ({"window": 3}, {"hidden": 9}, {"max_length": 5}, {"start": "random"}, {"dropout": 0})
    keys = {rival_job(stocked, {**CNN, **change}).recipe.key for change in changes}
    assert len(keys | {key}) == 6


@each_rival
def test_the_stored_rival_is_the_best_on_dev(rival: Mapping[str, Any], stocked: Workshop):
    made = stocked.make("student", student=with_rivals(rival))
    artifact = made["student"][-1]
    dev = read_shard(stocked.store, made["dataset"][1].as_input())
    tokens = token_ids(list(dev.texts), load_tokenizer(teacher_model(made)), max_length=16)
    predicted = read_rival(artifact.path(FILE)).predict(tokens).argmax(axis=1)
    assert accuracy(dev.labels, predicted) == pytest.approx(artifact.statistics["dev_accuracy"])


class Killed(BaseException):
    """No handler of errors may see it."""


@each_rival
def test_a_rival_that_was_killed_goes_on_and_ends_in_the_same_bytes(
    rival: Mapping[str, Any], stocked: Workshop, monkeypatch: pytest.MonkeyPatch
):
    every_update = partial(Checkpointing, every_seconds=0.0)
    monkeypatch.setattr(student, "Checkpointing", every_update)
    job = rival_job(stocked, {**rival, "epochs": 1})
    shares: list[float] = []

    def run(last: float) -> bytes:
        def progress(share: float) -> None:
            shares.append(share)
            if share >= last:
                raise Killed

        with stocked.store.create(job.recipe, tool_version="0") as writer:
            student.build(job, stocked.store, writer, progress)
        (artifact,) = stocked.store.find_all([job.recipe])
        assert artifact is not None
        found = artifact.path(FILE).read_bytes()
        stocked.store.remove(artifact.kind, artifact.key)
        return found

    undisturbed = run(last=2.0)
    shares.clear()
    with pytest.raises(Killed):
        run(last=0.5)
    tokens = list((stocked.store.workspace(job.recipe) / "tokens").iterdir())
    assert len(tokens) == 5  # three shards, train and dev
    monkeypatch.setattr("tasks.subword_examples.token_ids", None)  # are not made again
    shares.clear()
    assert run(last=2.0) == undisturbed
    assert 0.5 < shares[0] < 0.6
    assert not tokens[0].exists()


def test_the_embeddings_start_as_the_teachers_or_at_random(stocked: Workshop):
    tables = {}
    for start in ("teacher", "random"):
        still = {**CNN, "epochs": 1, "learning_rate": 1e-12, "start": start}
        made = stocked.make("student", student=with_rivals(still))
        tables[start] = load_file(made["student"][-1].path(FILE))["table"]
    own = teacher_embeddings(teacher_model(made))
    np.testing.assert_allclose(tables["teacher"], own, atol=1e-9)
    assert tables["random"].shape == own.shape
    assert tables["random"].std() == pytest.approx(0.1, rel=0.05)


def test_labels_of_train_have_their_say_where_the_dan_learns_from_them(stocked: Workshop):
    plain = stocked.make("student", student=with_rivals(CNN))["student"][-1]
    mixed = stocked.make("student", student=with_rivals(CNN, label_share=0.5))["student"][-1]
    assert "train" in mixed.manifest.inputs
    assert mixed.manifest.files != plain.manifest.files


def test_a_rival_that_does_not_fit_is_refused_with_what_it_needs(stocked: Workshop):
    job = rival_job(stocked, {**BILSTM, "dropout": 0.2})
    small = Job(job.recipe, {**job.runtime, "memory": 10**6})
    with pytest.raises(ConfigError, match=r"a BiLSTM of 111 tokens x 32 .* do not fit into 1MB"):
        student.STAGE.run(small, stocked.store)


def test_a_plan_counts_the_memory_and_the_files_of_rivals(stocked: Workshop):
    def planned(*rivals: Mapping[str, Any]) -> Any:
        config = stocked.config(student=with_rivals(*rivals), corpus={"sources": ["train.csv"]})
        return next(stage for stage in make_plan(config).stages if stage.stage == "student")

    alone, beside = planned(), planned({"architecture": "bilstm"})
    # A table of 50,000 tokens of a teacher of base size, and its moments.
    table = 4 * 50_000 * 768
    assert beside.memory > alone.memory + 2 * table
    assert beside.disk == pytest.approx(alone.disk + table)


def test_tokens_are_those_of_every_text_in_its_place(stocked: Workshop, tmp_path: Path):
    made = stocked.make("logits")
    tokenizer = load_tokenizer(teacher_model(made))
    train = made["dataset"][0].as_input()
    texts = read_shard(stocked.store, train)
    files = TokenFiles(stocked.store, tmp_path, tokenizer, max_length=4, rows=111)
    for _ in range(2):  # made, then found
        ids, tokens = files.of(train)
        assert ids.tolist() == texts.ids.tolist()
        expected = token_ids(list(texts.texts), tokenizer, max_length=4)
        assert [one.tolist() for one in tokens] == [one.tolist() for one in expected]
    assert len(list(tmp_path.glob("*tokens*"))) == 1


def test_a_tokenizer_of_another_model_is_refused(stocked: Workshop, tmp_path: Path):
    made = stocked.make("logits")
    tokenizer = load_tokenizer(teacher_model(made))
    files = TokenFiles(stocked.store, tmp_path, tokenizer, max_length=4, rows=50)
    with pytest.raises(DataError, match=r"gives token \d+, but the teacher has 50 embeddings"):
        files.of(made["dataset"][0].as_input())
    assert list(tmp_path.glob("*tokens*")) == []


def test_a_file_is_read_only_as_the_student_it_holds(stocked: Workshop, tmp_path: Path):
    dan, rival = (
        one.path(FILE) for one in stocked.make("student", student=with_rivals(CNN))["student"]
    )
    for read in (read_student, read_shape):
        with pytest.raises(ModelFileError, match=r"safetensors: holds a cnn, .* only a dan can"):
            read(rival)
    with pytest.raises(ModelFileError, match="holds a student over ngrams, not over tokens"):
        read_rival(dan)
    for number, metadata in enumerate((None, {"shape": "{}"}, {"architecture": "gru"})):
        path = tmp_path / f"{number}.safetensors"
        save_file(load_file(dan), path, metadata=metadata)
        with pytest.raises(
            ModelFileError, match=rf"{number}\.safetensors: the file does not say which student"
        ):
            read_student(path)
    path.write_bytes(dan.read_bytes()[:100])
    with pytest.raises(ModelFileError, match=r"2\.safetensors: not a whole safetensors file"):
        read_student(path)
    with pytest.raises(ModelFileError, match="not a whole safetensors file"):
        read_rival(tmp_path / "missing")


def test_logits_that_are_out_of_step_are_refused_for_rivals_too(stocked: Workshop):
    made = stocked.make("student", student=with_rivals(CNN))
    job = rival_job(stocked, CNN)
    inputs = {**job.recipe.inputs, "dev_logits": (made["logits"][-1].as_input(),)}
    wrong = Job(replace(job.recipe, inputs=inputs), job.runtime)
    with pytest.raises(DataError, match="rows or labels are out of step"):
        student.STAGE.run(wrong, stocked.store)
