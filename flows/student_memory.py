"""Whether the students of a run fit into the memory: asked before the run's first stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsedistill.training.memory_plan import check_memory

if TYPE_CHECKING:
    from flows.config import DistillConfig
    from sparsedistill.training.memory_plan import MemoryPlan


def check_student_memory(
    config: DistillConfig, *, rows: int | None = None, examples: int = 0, classes: int = 2
) -> MemoryPlan:
    """Return what training one student takes.

    Args:
        config: Of the run.
        rows: Of the vocabulary; the most it may have where not given.
        examples: To train on, as far as they are known.
        classes: Number of labels.

    Raises:
        ConfigError: The students that are trained at a time do not fit; the message has the ways
            out. On machines elsewhere (a Dask cluster by its address) each looks for itself.
    """
    run, student = config.run, config.student
    students = len(student.seeds) * (1 + len(student.baselines))
    return check_memory(
        student.shape(rows=rows or config.vocabulary.size, classes=classes),
        student.student_training(),
        batch_size=student.batch_size,
        examples=examples,
        budget=run.memory_of_students() if run.dask_address is None else None,
        at_once=min(run.workers, students),
    )
