"""What training a student takes of the memory, counted before anything is made.

Nearly all of it is the table and Adam's moments, so that is where the ways out are when a machine
has less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sparsedistill.errors import ConfigError
from sparsedistill.memory import format_size

if TYPE_CHECKING:
    from sparsedistill.students.dan import DANShape
    from sparsedistill.students.training import StudentTraining

# The interpreter, torch and the compiled kernels.
_LIBRARIES = 700 << 20
# An occurrence in a batch: its row, the packed number it is sorted by, and what is made of it; of
# the batch in hand and of the one that is made ready.
_OCCURRENCE = 2 * 40
# Copies of a batch's activations that a layer holds at a time, and of its weights.
_ACTIVATIONS, _DENSE = 4, 8
_NGRAMS_A_TEXT = 64


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that training takes.

    Attributes:
        table: The embeddings.
        moments: Adam's, of the embeddings.
        dense: The other layers, with moments and gradients.
        batch: Two batches with all that is made of them.
        targets: Of all examples.
        libraries: What is there before.
    """

    table: int
    moments: int
    dense: int
    batch: int
    targets: int
    libraries: int = _LIBRARIES

    @property
    def total(self) -> int:
        """All of it."""
        return self.table + self.moments + self.dense + self.batch + self.targets + self.libraries


def memory_plan(
    shape: DANShape,
    training: StudentTraining,
    *,
    batch_size: int,
    examples: int,
    ngrams_a_text: float = _NGRAMS_A_TEXT,
) -> MemoryPlan:
    """Count what training a student takes.

    Args:
        shape: Of the student.
        training: Decides what Adam remembers.
        batch_size: Texts.
        examples: Whose targets are held; features are mapped from their files and not counted.
        ngrams_a_text: Known n-grams that a text has on average.
    """
    options = training.table(dtype=shape.table_type)
    layers = shape.linear_layers().values()
    widths = 2 * shape.width + sum(outputs for outputs, _ in layers)
    return MemoryPlan(
        table=options.table_bytes(shape.rows, shape.width),
        moments=options.moment_bytes(shape.rows, shape.width),
        dense=_DENSE * 4 * sum(outputs * inputs for outputs, inputs in layers),
        batch=int(batch_size * (_ACTIVATIONS * 4 * widths + ngrams_a_text * _OCCURRENCE)),
        targets=examples * (4 * shape.classes + 8),
    )


def check_memory(
    shape: DANShape,
    training: StudentTraining,
    *,
    batch_size: int,
    examples: int,
    budget: int | None,
    at_once: int = 1,
) -> MemoryPlan:
    """See that students fit into the memory.

    Args:
        shape: Of the student.
        training: Decides what Adam remembers.
        batch_size: Texts.
        examples: Whose targets are held.
        budget: Bytes there are; None where that is not known.
        at_once: Students that are trained at the same time.

    Raises:
        ConfigError: They do not; the message has what they need and the ways out.
    """

    def planned(changed: DANShape, trained: StudentTraining) -> MemoryPlan:
        return memory_plan(changed, trained, batch_size=batch_size, examples=examples)

    plan = planned(shape, training)
    if budget is None or plan.total * at_once <= budget:
        return plan
    by_row = replace(training, second_moment="row")
    half = replace(shape, table_type="bfloat16")
    ways = [
        (f'second_moment = "row" takes {format_size(planned(shape, by_row).total)}',
         planned(shape, by_row).total, training.second_moment != "row"),
        (f'table_type = "bfloat16" takes {format_size(planned(half, training).total)}',
         planned(half, training).total, shape.table_type != "bfloat16"),
        (f"both take {format_size(planned(half, by_row).total)}",
         planned(half, by_row).total,
         training.second_moment != "row" and shape.table_type != "bfloat16"),
    ]  # fmt: skip
    out = [text for text, size, new in ways if new and size * at_once <= budget]
    fixed = plan.total - plan.table - plan.moments
    per_row = (plan.table + plan.moments) / (shape.rows * shape.width)
    room = int((budget / at_once - fixed) / per_row) if budget > fixed * at_once else 0
    if room // shape.rows:
        out.append(f"width = {room // shape.rows} fits")
    if room // shape.width:
        out.append(f"[vocabulary] size = {room // shape.width} fits")
    if at_once > 1:
        out.append("[run] workers = 1 trains one student at a time")
    students, do = (
        ("a student", "does") if at_once == 1 else (f"{at_once} students at a time", "do")
    )
    raise ConfigError(
        f"[student] {shape.rows:,} rows x {shape.width}: {students} of {format_size(plan.total)} "
        f"(table {format_size(plan.table)}, moments {format_size(plan.moments)}, the rest "
        f"{format_size(fixed)}) {do} not fit into {format_size(budget)}; "
        f"{'; '.join(out) if out else 'a smaller [vocabulary] size or width is needed'}"
    )
