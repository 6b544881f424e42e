"""The packaged model against the model it was made from, and the numbers of the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import LABELS

from dashboards.summary import headline
from flows.delivery import RunResult
from sparsedistill.classifier import Classifier
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.memory import parse_size
from sparsedistill.metrics import softmax
from tasks.features import read_features
from tasks.package import _refuse_bad_fold
from tasks.report_file import REPORT_FILE, SUMMARY_FILE
from tasks.shards import read_texts_of
from tasks.student_file import FILE, read_student

MODELS = ["tfidf_lr", "dan_scratch", "dan_kd_private", "dan_kd", "dan_kd_ft", "teacher"]
SMALL = {"student": {"baselines": []}, "baseline": {"enabled": False}}


def packaged(workshop: Workshop, **package: object):
    return workshop.make("package", **SMALL, package=package)


def test_the_packaged_model_answers_as_the_training_time_model_on_test(tiny_run: RunResult):
    made = tiny_run.artifacts
    package = made["package"][0]
    classifier = Classifier.load(package.directory())
    test = read_texts_of(made["dataset"][2])
    _, bags = read_features(made["features"][-1])
    chosen = {i.key for i in package.manifest.inputs["student"]}
    (student,) = (one for one in made["finetune"] if one.key in chosen)
    logits = read_student(student.path(FILE)).predict(bags)
    truth = softmax(logits, temperature=float(package.statistics["temperature"]))
    np.testing.assert_allclose(classifier.predict_proba(list(test.texts)), truth, atol=1e-5)
    assert tuple(classifier.classes_) == LABELS


def test_every_step_is_compared_with_the_one_before(stocked: Workshop):
    settings = {"keep_share": 0.5, "dtype": "int8"}
    package = packaged(stocked, **settings)["package"][0]
    steps = package.statistics["steps"]
    assert [step["step"] for step in steps] == ["fold", "prune", "quantise"]
    assert steps[0]["max_logit_difference"] < 1e-5
    assert steps[1]["max_logit_difference"] > steps[0]["max_logit_difference"]
    assert steps[0]["bytes"] > steps[1]["bytes"] > steps[2]["bytes"]
    assert all(0 <= step["accuracy"] <= 1 for step in steps)
    assert steps[0]["agreement"] == 1
    assert all(step["texts_per_second"] > 0 for step in steps)


def test_the_pruning_curve_is_measured_whatever_is_pruned(stocked: Workshop):
    made = packaged(stocked)
    curve = made["package"][0].statistics["curve"]
    assert {point["rule"] for point in curve} == {"contribution", "count", "train_count", "order"}
    assert {point["accuracy"] for point in curve if point["share"] == 1} == {
        made["package"][0].statistics["steps"][0]["accuracy"]
    }
    assert packaged(stocked, keep_share=0.1)["package"][0].statistics["curve"] == curve


@pytest.mark.parametrize("size", ["8kB", "20kB", 40_000])
def test_a_largest_size_is_kept(size: str | int, stocked: Workshop):
    package = packaged(stocked, max_size=size)["package"][0]
    assert sum(file.bytes for file in package.manifest.files) <= parse_size(size)
    assert package.statistics["tried"]
    Classifier.load(package.directory(), verify=True)


def test_a_least_accuracy_is_kept_by_a_smaller_model(stocked: Workshop):
    full = packaged(stocked)["package"][0].statistics
    package = packaged(stocked, min_accuracy="0.95x")["package"][0]
    assert package.statistics["steps"][-1]["accuracy"] >= 0.95 * full["steps"][0]["accuracy"]
    assert package.statistics["steps"][-1]["bytes"] < full["steps"][0]["bytes"] / 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_size": "small"}, "package.max_size: 'small' is no amount of memory"),
        ({"min_accuracy": "99%"}, r"package.min_accuracy: '99%' is no accuracy: write 0\.93"),
        ({"keep_share": 0.5, "max_size": "1MB"}, "package: give either the share of rows"),
        ({"keep_by": "luck"}, "package.keep_by: Input should be 'contribution', 'count'"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_anything_runs(
    settings: dict[str, object], said: str, workshop: Workshop
):
    with pytest.raises(ConfigError, match=said):
        workshop.config(package=settings)


def test_pruning_keeps_the_share_asked_for(stocked: Workshop):
    made = packaged(stocked, keep_share=0.25, keep_by="count")
    rows = made["vocabulary"][0].statistics["rows"]
    assert made["package"][0].statistics["rows"] == round(rows / 4)
    assert len(Classifier.load(made["package"][0].directory()).predict(["rose soil"])) == 1


def test_calibration_fits_a_temperature_unless_it_is_off(stocked: Workshop):
    fitted, plain = (packaged(stocked, calibrate=on)["package"][0] for on in (True, False))
    assert plain.statistics["temperature"] == 1.0
    assert fitted.statistics["temperature"] != 1.0


def test_the_best_seed_on_dev_is_packaged(stocked: Workshop):
    settings = {**SMALL, "student": {"baselines": [], "seeds": [0, 1, 2], "epochs": 1}}
    made = stocked.make("package", **settings)
    best = max(made["finetune"], key=lambda one: one.statistics["dev_accuracy"])
    assert made["package"][0].manifest.inputs["student"][0].key == best.key


def test_a_fold_that_changes_the_answers_is_refused():
    with pytest.raises(DataError, match=r"the folded model's logits differ .* by 0.5, more than"):
        _refuse_bad_fold(0.5)
    with pytest.raises(DataError, match="by nan"):
        _refuse_bad_fold(float("nan"))


def test_the_model_tells_its_inputs_but_neither_time_nor_place(tiny_run: RunResult):
    package = tiny_run.artifacts["package"][0]
    config = json.loads(package.path("config.json").read_text())
    assert config["training"]["package"] == package.key
    assert config["training"]["inputs"]["vocabulary"] == tiny_run.artifacts["vocabulary"][0].digest
    assert "/tmp" not in json.dumps(config)


def test_the_table_has_one_row_a_model_with_the_issues_names(tiny_run: RunResult):
    rows = tiny_run.summary()["results"]
    assert [row["model"] for row in rows] == MODELS
    for row in rows:
        assert {"accuracy", "macro_f1", "agreement", "texts_per_second", "bytes"} <= set(row)
        assert 0 <= row["accuracy"] <= 1
        assert row["texts_per_second"] > 0
        assert row["bytes"] > 0
        assert (row["agreement"] is None) == (row["model"] == "teacher")


def test_figures_of_the_table_are_those_of_the_packaged_model(tiny_run: RunResult):
    row = next(r for r in tiny_run.summary()["results"] if r["model"] == "dan_kd_ft")
    package = tiny_run.artifacts["package"][0]
    test = read_texts_of(tiny_run.artifacts["dataset"][2])
    said = Classifier.load(package.directory()).predict(list(test.texts))
    right = np.mean([a == LABELS[b] for a, b in zip(said, test.labels, strict=True)])
    assert row["accuracy"] == pytest.approx(right)
    assert row["bytes"] == sum(file.bytes for file in package.manifest.files)


def test_the_summary_holds_every_part_of_the_page(tiny_run: RunResult):
    summary = tiny_run.summary()
    assert summary["name"] == "tiny"
    assert summary["labels"] == list(LABELS)
    assert summary["splits"] == {"train": 120, "dev": 40, "test": 40, "evaluated_on": "test"}
    assert (summary["corpus"]["rows"], summary["corpus"]["shards"]) == (600, 3)
    assert {curve["model"] for curve in summary["training"]} == {
        "dan_scratch", "dan_kd_private", "dan_kd",
    }  # fmt: skip
    assert sum(summary["disagreements"]["counts"].values()) == 40
    assert {point["share"] for point in summary["package"]["curve"]} >= {1.0, 0.1, 0.01}
    assert np.sum(summary["confusion"]["models"]["dan_kd_ft"]) == 40
    shares = [point["share"] for point in summary["ngrams"]["coverage"]]
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1
    assert [stage["stage"] for stage in summary["stages"]] == [
        "dataset", "corpus", "ngrams", "vocabulary", "features", "teacher", "logits", "baseline",
        "student", "finetune", "package", "evaluation",
    ]  # fmt: skip
    nodes = {node["id"] for node in summary["lineage"]["nodes"]}
    assert {("teacher", "logits"), ("logits", "student"), ("finetune", "package")} <= {
        tuple(edge) for edge in summary["lineage"]["edges"]
    }
    assert all({a, b} <= nodes for a, b in summary["lineage"]["edges"])


def test_without_a_test_file_the_report_says_that_it_measured_on_dev(stocked: Workshop):
    made = stocked.make("report", **SMALL, dataset={"test": None})
    assert made["report"][0].read_json(SUMMARY_FILE)["splits"]["evaluated_on"] == "dev"


def test_the_page_is_one_file_that_asks_for_nothing_from_outside(tiny_run: RunResult):
    page = tiny_run.artifacts["report"][0].path(REPORT_FILE).read_text("utf-8")
    assert page.lstrip().lower().startswith("<!doctype html")
    for outside in ('src="http', "src='http", '<link rel="stylesheet" href="http', "@import url"):
        assert outside not in page
    assert headline(tiny_run.summary()).split()[0] in page
