"""Every stage that runs the teacher does it on a device of the run, which it has for itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.stages import Workshop

from sparsedistill.errors import ConfigError
from sparsedistill.teacher import labelling
from sparsedistill.teacher.labelling import LabellingOptions
from tasks import evaluation, teacher


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What stages ask for a device of, and when they give it back; each gets the processor."""
    found: list[tuple[str, ...]] = []

    @contextmanager
    def in_turn(devices: Sequence[str]) -> Iterator[str]:
        found.append(tuple(devices))
        yield "cpu"
        found.append(("given back",))

    for stage in (evaluation, teacher):
        monkeypatch.setattr(stage, "device_in_turn", in_turn)
    return found


def test_the_teacher_is_timed_on_a_device_of_the_run_as_it_reads(
    stocked: Workshop, asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[LabellingOptions] = []

    class Spy(labelling.Teacher):
        def __init__(self, *given: Any, **named: Any) -> None:
            assert asked == [("meta:0",)]
            options.append(named["options"])
            super().__init__(*given, **named)

        def logits(self, *given: Any, **named: Any) -> Any:
            assert asked == [("meta:0",)], "it is timed while the device is held"
            return super().logits(*given, **named)

    monkeypatch.setattr(labelling, "Teacher", Spy)
    settings = {"evaluation": {"teacher_texts": 3}, "run": {"teacher_devices": ["meta"]}}
    (made,) = stocked.make("evaluation", **settings)["evaluation"]
    assert asked == [("meta:0",), ("given back",)]
    (one,) = options
    (model,) = stocked.make("teacher")["teacher"]
    assert one.device == "cpu"
    for name in ("max_length", "long_texts", "overlap", "precision"):
        assert getattr(one, name) == model.statistics[name]
    (row,) = [one for one in made.statistics["results"] if one["model"] == "teacher"]
    assert row["texts_per_second"] > 0


def test_where_the_teacher_is_timed_makes_no_other_evaluation(stocked: Workshop) -> None:
    (here,) = stocked.jobs("evaluation")
    (there,) = stocked.jobs("evaluation", run={"teacher_devices": ["cuda:7"]})
    assert (here.runtime["devices"], there.runtime["devices"]) == (None, ["cuda:7"])
    assert here.recipe.key == there.recipe.key


def test_a_device_that_the_trainer_cannot_use_is_not_taken_for_a_gpu(workshop: Workshop) -> None:
    with pytest.raises(ConfigError, match="fine-tuning runs on a CPU or on CUDA, not on mps:0"):
        workshop.make("teacher", run={"teacher_devices": ["mps"]})


def test_a_teacher_that_is_taken_as_it_is_may_be_on_any_device(
    workshop: Workshop, tiny_classifier: Path, asked: list[tuple[str, ...]]
) -> None:
    taken = {"checkpoint": str(tiny_classifier), "finetune": False}
    workshop.make("teacher", teacher=taken, run={"teacher_devices": ["meta", "xpu:1"]})
    assert asked[0] == ("meta:0", "xpu:1")
