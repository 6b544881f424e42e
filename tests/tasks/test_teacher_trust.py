"""What is said of the teacher's logits: calibration against a loop over rows, counts by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import LABELS
from hypothesis import given
from hypothesis import strategies as st

from flows.delivery import RunResult
from sparsedistill.metrics import negative_log_likelihood, softmax
from tasks.logit_file import aligned_logits
from tasks.report_file import REPORT_FILE, SUMMARY_FILE
from tasks.shards import read_texts_of
from tasks.teacher_trust import teacher_calibration, teacher_summary

SMALL = {"student": {"baselines": [], "epochs": 1}, "baseline": {"enabled": False}}


def too_sure(rows: int, *, seed: int = 0, sharpness: float = 3.0) -> tuple[Any, Any]:
    """Labels drawn from a teacher's probabilities, and logits that are sharper than those."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (rows, 3)).astype(np.float32)
    truth = np.array([rng.choice(3, p=row) for row in softmax(logits)])
    return truth, logits * np.float32(sharpness)


def slow_error(truth: Any, logits: Any, temperature: float) -> float:
    """Expected calibration error over 15 bins of equal width, row by row."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for label, row in zip(truth, softmax(logits, temperature), strict=True):
        sure = float(row.max())
        number = next(b for b in range(15) if b == 14 or sure <= (b + 1) / 15)
        bins.setdefault(number, []).append((sure, bool(row.argmax() == label)))
    return sum(abs(sum(sure - right for sure, right in rows)) for rows in bins.values()) / len(
        truth
    )


def test_the_error_is_that_of_15_bins_and_the_temperature_the_likeliest_on_dev():
    dev, test = too_sure(900), too_sure(600, seed=1)
    found = teacher_calibration({"dev": dev, "test": test})
    assert found is not None
    assert found["temperature"] == pytest.approx(3.0, rel=0.15)
    steps = np.geomspace(0.5, 8, 400)
    likeliest = min(steps, key=lambda t: negative_log_likelihood(*dev, temperature=t))
    assert found["temperature"] == pytest.approx(likeliest, rel=0.02)
    assert [one["split"] for one in found["splits"]] == ["dev", "test"]
    for one, (truth, logits) in zip(found["splits"], (dev, test), strict=True):
        assert (one["rows"], one["of"]) == (len(truth), len(truth))
        assert one["accuracy"] == np.mean(logits.argmax(axis=1) == truth)
        assert one["before"]["ece"] == pytest.approx(slow_error(truth, logits, 1.0))
        assert one["after"]["ece"] == pytest.approx(slow_error(truth, logits, found["temperature"]))
        assert one["after"]["ece"] < one["before"]["ece"] / 2
        assert sum(b["count"] for b in one["before"]["bins"]) == len(truth)


def test_rows_without_logits_are_left_out_and_too_few_of_them_say_nothing():
    truth, logits = too_sure(200)
    some = logits.copy()
    some[50:] = np.nan
    found = teacher_calibration({"dev": (truth, some), "test": (truth, np.full_like(some, np.nan))})
    alone = teacher_calibration({"dev": (truth[:50], logits[:50])})
    assert found is not None
    assert alone is not None
    (split,) = found["splits"]
    assert (split["rows"], split["of"]) == (50, 200)
    assert found["temperature"] == alone["temperature"]
    assert split["before"] == alone["splits"][0]["before"]
    some[20:] = np.nan
    assert teacher_calibration({"dev": (truth, some), "test": (truth, logits)}) is None


def test_a_teacher_that_knows_all_of_dev_has_no_temperature():
    """The likeliest would be the smallest there is, which says nothing of other texts."""
    _, logits = too_sure(100)
    test = too_sure(60, seed=1)
    found = teacher_calibration({"dev": (logits.argmax(axis=1), logits), "test": test})
    assert found is not None
    assert found["temperature"] is None
    assert [one["after"] for one in found["splits"]] == [None, None]
    assert found["splits"][1]["before"]["ece"] == pytest.approx(slow_error(*test, 1.0))


def shard(**statistics: Any) -> Any:
    return SimpleNamespace(statistics={"predicted": [3, 1], **statistics})


def summary_of(corpus: list[Any], **given: Any) -> dict[str, Any]:
    train: Any = SimpleNamespace(
        statistics={"labels": ["no", "yes"], "rows_per_label": [60, 40], "rows": 100}
    )
    splits = [shard(confidence=[99] * 20, quarantined={"dark": 1})] * 3
    return teacher_summary(
        train=train, logits=[*corpus, *splits], students=given.get("students", []), measured=None
    )


@given(st.lists(st.floats(0.34, 0.999), min_size=1, max_size=60), st.integers(0, 60))
def test_unsure_rows_are_those_below_seven_tenths_however_shards_are_cut(
    greatest: list[float], cut: int
):
    parts = [p for p in (greatest[:cut], greatest[cut:]) if p]
    shards = [
        shard(confidence=np.histogram(part, 20, (0, 1))[0].tolist(), quarantined={})
        for part in parts
    ]
    found = summary_of(shards)["confidence"]
    edge = np.linspace(0, 1, 21)[14]
    assert found["unsure"] == sum(value < edge for value in greatest)
    assert sum(found["counts"]) == len(greatest)
    assert found["unsure_below"] == 0.7


def test_shards_are_summed_and_splits_count_for_quarantine_alone():
    corpus = [
        shard(confidence=[0] * 19 + [4], quarantined={"not finite": 2}),
        shard(confidence=[0] * 19 + [4], quarantined={"not finite": 1, "too long": 1}),
    ]
    found = summary_of(corpus)
    assert found["classes"] == [
        {"label": "no", "train": 60, "predicted": 6},
        {"label": "yes", "train": 40, "predicted": 2},
    ]
    assert found["confidence"]["counts"] == [0] * 19 + [8]
    assert list(found["quarantined"].items()) == [("dark", 3), ("not finite", 3), ("too long", 1)]


def test_what_a_shard_from_before_does_not_say_is_not_guessed():
    old, new = shard(), shard(confidence=[1] * 20, quarantined={})
    found = summary_of([new, old])
    assert found["confidence"] is found["quarantined"] is found["chosen"] is None
    assert found["classes"][0]["predicted"] == 6


def test_a_run_reports_on_its_teacher(tiny_run: RunResult):
    made, found = tiny_run.artifacts, tiny_run.summary()["teacher"]
    dev = read_texts_of(made["dataset"][1])
    logits = aligned_logits(made["logits"][-2], dev)
    assert dev.labels is not None
    first = found["calibration"]["splits"][0]
    assert first["before"]["ece"] == pytest.approx(slow_error(dev.labels, logits, 1.0))
    assert [(one["split"], one["rows"]) for one in found["calibration"]["splits"]] == [
        ("dev", 40), ("test", 40),
    ]  # fmt: skip
    assert [one["label"] for one in found["classes"]] == list(LABELS)
    assert sum(one["predicted"] for one in found["classes"]) == 600
    assert [one["train"] for one in found["classes"]] == [40, 40, 40]
    counts = found["confidence"]["counts"]
    assert (len(counts), sum(counts)) == (20, 600)
    assert found["quarantined"] == {}
    assert found["chosen"] is None
    page = made["report"][0].path(REPORT_FILE).read_text("utf-8")
    assert "What it made of the corpus" in page


def test_a_run_with_a_choice_of_rows_says_what_it_left_out(stocked: Workshop):
    settings = {**SMALL, "student": {**SMALL["student"], "balance": "even"}}
    made = stocked.make("report", **settings)
    found = made["report"][0].read_json(SUMMARY_FILE)["teacher"]["chosen"]
    assert found["settings"] == {"balance": [1, 1, 1]}
    assert sum(found["labelled"]) == 600
    assert found["kept"] == made["student"][0].statistics["chosen"]["kept"]
    page = made["report"][0].path(REPORT_FILE).read_text("utf-8")
    assert "because their class has its share" in page


def test_without_a_test_file_dev_alone_is_measured(stocked: Workshop):
    found = stocked.make("report", **SMALL, dataset={"test": None})["report"][0]
    splits = found.read_json(SUMMARY_FILE)["teacher"]["calibration"]["splits"]
    assert [one["split"] for one in splits] == ["dev"]


def test_given_logits_are_trusted_as_far_as_they_reach(stocked: Workshop):
    """Calibration is of the rows of dev and test that they cover; with too few there is none."""
    made = stocked.make("logits")
    texts = [read_texts_of(one) for one in made["dataset"]]
    rows = [
        (text, row)
        for split, logits in zip(texts, made["logits"][-3:], strict=True)
        for text, row in zip(split.texts, aligned_logits(logits, split).tolist(), strict=True)
    ]
    corpus = [
        (text, [0.0, 1.0, 0.0]) for text in (stocked.data / "corpus.txt").read_text().splitlines()
    ]
    for missing, splits in ((9, ["dev"]), (11, None)):
        # All of train, of dev (which comes next) all but some, nothing of test.
        given = [*rows[: 120 + 40 - missing], *corpus]
        table = pa.table({"text": [t for t, _ in given], "logits": [row for _, row in given]})
        names = {"label_names": json.dumps(list(LABELS))}
        pq.write_table(table.replace_schema_metadata(names), stocked.data / f"g{missing}.parquet")
        made = stocked.make("report", **SMALL, teacher=None, logits={"path": f"g{missing}.parquet"})
        found = made["report"][0].read_json(SUMMARY_FILE)["teacher"]
        if splits is None:
            assert found["calibration"] is None
        else:
            assert [one["split"] for one in found["calibration"]["splits"]] == splits
            assert found["calibration"]["splits"][0]["rows"] == 40 - missing
        assert [one["predicted"] for one in found["classes"]] == [0, 600, 0]
        page = made["report"][0].path(REPORT_FILE).read_text("utf-8")
        assert f"The teacher hardly sees {LABELS[0]} (never), {LABELS[2]} (never)" in page
