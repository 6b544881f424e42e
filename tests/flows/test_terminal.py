"""What the terminal shows of a run under way."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.terminal import StageBars, training_text
from tasks import progress

LOOK = {"update": 1200, "dev_accuracy": 0.834, "loss": 0.12345, "examples_per_second": 25_400.0}


def shown(*, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=140)
    with StageBars(console).shown():
        progress.expect("student", ["a", "b"])
        progress.advance("student", "a", 0.5)
        progress.measured("student", "a", "kd seed 0", LOOK)
        progress.measured("student", "of another run", "kd seed 9", {})
        if terminal:
            progress.finish("student", "b", cached=True)
        else:
            progress.finish("student", "b", cached=True)
            progress.finish("student", "a", cached=False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_the_last_look_at_dev_stands_beside_the_bar():
    text = shown(terminal=True)
    assert "kd seed 0: update 1,200, dev 83.4 %, loss 0.123, 25,400 texts/s" in text
    assert "1 of 2, 1 cached" in text
    assert "seed 9" not in text


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"epoch": 2, "dev_accuracy": 0.834}, "epoch 2, dev 83.4 %"),
        ({"some_figure": 0.12345}, "some figure 0.123"),
        ({}, ""),
    ],
)
def test_figures_of_any_training_are_told(figures: dict[str, float], words: str):
    """The teacher's are others than the student's."""
    assert training_text(figures) == words


def test_without_a_terminal_a_stage_is_one_line_when_it_is_done():
    assert shown(terminal=False) == "student: 2 of 2, 1 cached\n"
