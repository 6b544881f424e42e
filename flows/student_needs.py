"""Whether the students of a run can be trained here: asked before the run's first stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsedistill.students.stepping import device_named
from sparsedistill.training.memory_plan import check_memory
from sparsedistill.training.subword_memory import check_subword_memory

if TYPE_CHECKING:
    from flows.config import DistillConfig
    from sparsedistill.training.memory_plan import MemoryPlan

# Embeddings of a teacher of base size, and tokens of a text of its domain: a guess.
_TOKENS, _TOKEN_WIDTH, _TOKENS_A_TEXT = 50_000, 768, 64


def check_students(
    config: DistillConfig, *, rows: int | None = None, examples: int = 0, classes: int = 2
) -> MemoryPlan:
    """Return what training one DAN takes.

    Args:
        config: Of the run.
        rows: Of the vocabulary; the most it may have where not given.
        examples: To train on, as far as they are known.
        classes: Number of labels.

    Raises:
        ConfigError: There is no such device, or the students that are trained at a time do not
            fit; the message has the ways out. On machines elsewhere (a Dask cluster by its address)
            each looks for itself; the memory of another device is not known here.
    """
    run, student = config.run, config.student
    if run.dask_address is None:
        device_named(run.student_device)
    here = run.dask_address is None and run.student_device == "cpu"
    students = len(student.seeds) * (1 + len(student.baselines))
    return check_memory(
        student.shape(rows=rows or config.vocabulary.size, classes=classes),
        student.student_training(),
        batch_size=student.batch_size,
        examples=examples,
        budget=run.memory_of_students() if here else None,
        at_once=min(run.workers, students),
    )


def rivals_memory(config: DistillConfig, *, examples: int, classes: int) -> list[MemoryPlan]:
    """Return about what training each rival takes; none is refused before its teacher is there.

    Args:
        config: Of the run.
        examples: To train on, as far as they are known.
        classes: Number of labels.
    """
    if config.teacher is None:
        return []
    plans = []
    for rival in config.student.rivals:
        longest = rival.max_length or config.teacher.longest
        plans.append(
            check_subword_memory(
                rival.network(rows=_TOKENS, width=_TOKEN_WIDTH, classes=classes),
                rival.training(config.student),
                batch_size=rival.batch_size,
                tokens_a_text=min(longest, _TOKENS_A_TEXT),
                longest=longest,
                examples=examples,
                threads=config.run.threads,
                budget=None,
            )
        )
    return plans
