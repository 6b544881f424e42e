"""What the run-time benchmarks count and compare; their times are nobody's promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def row(contender: str, way: str, rate: float, accuracy: float) -> dict[str, object]:
    return {
        "task": "t",
        "contender": contender,
        "way": way,
        "texts_per_s": rate,
        "accuracy": accuracy,
    }


def test_one_core_is_compared_with_one_core_and_two_with_the_best_way_of_all() -> None:
    from inference_table import compare

    rows = [
        row("ours int8", "1 core", 100.0, 0.9),
        row("ours int8", "2 threads", 180.0, 0.9),
        row("fastText n=2", "1 core", 50.0, 0.8),
        row("fastText n=2", "2 processes", 60.0, 0.8),
        row("fastText n=2", "1 core, words given", 90.0, 0.8),
        row("TF-IDF(1,2) + LR", "1 core", 10.0, 0.85),
        row("teacher", "2 threads, float32", 1.0, 0.95),
    ]
    one, two = compare(rows)
    assert one["times fastest peer"] == pytest.approx(2)
    assert two["times fastest peer"] == pytest.approx(3)
    assert two["points above best peer"] == pytest.approx(5)
    assert two["times TF-IDF(1,2) + LR"] == pytest.approx(18)
    assert two["times teacher float32"] == pytest.approx(180)
    assert two["times teacher bfloat16"] is None


def test_without_peers_there_is_nothing_to_be_faster_than() -> None:
    from inference_table import compare

    (ratio,) = compare([row("ours int8", "1 core", 100.0, 0.9)])
    assert ratio["points above best peer"] is None
    assert ratio["times fastest peer"] is None


def test_parts_for_processes_are_all_the_texts_in_order() -> None:
    from inference_peers import cut, spread

    texts = [str(i) for i in range(10)]
    assert [text for part in cut(texts, 4) for text in part] == texts
    assert len(cut(texts, 4)) == 4
    assert cut([], 4) == []
    assert spread(texts, 0) == spread(texts, 99) == list(range(10))
    assert spread(texts, 3) == [0, 4, 9]


def test_a_row_that_crosses_a_line_needs_both_lines() -> None:
    from roofline import lines_of_rows

    rows, text_of = np.array([0, 1, 3], np.int32), np.array([0, 0, 1])
    lines, texts = lines_of_rows(rows, text_of, 48)
    assert lines.tolist() == [0, 0, 1, 2]  # bytes 0-47, 48-95, 144-191
    assert texts.tolist() == [0, 0, 0, 1]


def test_what_begins_with_an_unknown_ngram_need_not_be_looked_up() -> None:
    from roofline import UNKNOWN, mark_needed

    # Two texts, of three tokens and one; n-grams of 1 and 2 tokens, by first token.
    rows = np.array([5, 6, UNKNOWN, 7, 8, 9], np.int32)
    needed = np.empty(6, np.bool_)
    mark_needed(rows, np.array([0, 3, 4]), 2, needed)
    assert needed.tolist() == [True, True, True, False, True, True]


def test_operations_are_two_for_each_weight_and_grow_with_the_length() -> None:
    from teacher_cost import SHAPES, operations

    layers, width, _, inner, _ = SHAPES["BERT-base"]
    weights = layers * (4 * width * width + 2 * width * inner)
    assert operations("BERT-base", 0) == 2 * weights
    assert operations("BERT-base", 128) - operations("BERT-base", 0) == 4 * layers * 128 * width


def test_marks_become_words_of_their_own_for_fasttext() -> None:
    from inference_peers import PREPARE

    assert PREPARE["split"]('"No!"\nA\tB.').split() == ['"', "no", "!", '"', "a", "b", "."]
    assert PREPARE["lower"]("How ?") == "how ?"
