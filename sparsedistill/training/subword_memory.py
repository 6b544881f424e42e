"""What training a student over subwords takes of the memory, counted before it is made.

Its table is no larger than the teacher's; what grows is a batch: it holds the vector of every token
of its texts, and each thread the states of a slice of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sparsedistill.errors import ConfigError
from sparsedistill.memory import format_size
from sparsedistill.students.subwords import SLICE
from sparsedistill.training.memory_plan import MemoryPlan

if TYPE_CHECKING:
    from sparsedistill.students.subwords import Network
    from sparsedistill.students.training import StudentTraining

# A number of a token's vector in a batch: the vector, its gradient, and a copy while they are made.
_VECTOR = 3 * 4
# A token in a batch: its place among the tokens sorted by row; of the batch in hand and the next.
_TOKEN = 2 * 48
# Copies of a slice's states that autograd keeps, or makes on its way back.
_STATES = 3 * 4
# Copies of the dense weights: with moments and the sum of gradients; and of every slice under way.
_DENSE, _DENSE_OF_A_SLICE = 5 * 4, 4


def check_subword_memory(
    network: Network,
    training: StudentTraining,
    *,
    batch_size: int,
    tokens_a_text: float,
    longest: int,
    examples: int,
    threads: int,
    budget: int | None,
) -> MemoryPlan:
    """See that a student over subwords fits into the memory.

    Args:
        network: Its sizes.
        training: Decides what Adam remembers.
        batch_size: Texts.
        tokens_a_text: On average.
        longest: Tokens that a text has at most.
        examples: Whose targets are held; tokens are mapped from their files and not counted.
        threads: Slices of a batch that are worked on at a time.
        budget: Bytes there are; None where that is not known.

    Returns:
        What it takes.

    Raises:
        ConfigError: It does not fit; the message has what it needs.
    """
    forms = network.weights()
    del forms["table"]
    options = training.table()
    dense = sum(math.prod(shape) for _, shape in forms.values())
    # Every weight matrix has a state of so many numbers for each token it is used on.
    states = sum(shape[0] for _, shape in forms.values() if len(shape) > 1)
    slices = min(threads, math.ceil(batch_size / SLICE))
    in_slices = slices * SLICE * longest * _STATES * (network.width + states)
    in_batch = int(batch_size * tokens_a_text * (_VECTOR * network.width + _TOKEN))
    plan = MemoryPlan(
        table=options.table_bytes(network.rows, network.width),
        moments=options.moment_bytes(network.rows, network.width),
        dense=dense * (_DENSE + _DENSE_OF_A_SLICE * (slices + 1)),
        batch=in_batch + in_slices,
        targets=examples * (4 * network.classes + 8),
    )
    if budget is not None and plan.total > budget:
        raise ConfigError(
            f"a {type(network).__name__} of {network.rows:,} tokens x {network.width} takes "
            f"{format_size(plan.total)} (table {format_size(plan.table)}, moments "
            f"{format_size(plan.moments)}, a batch of {batch_size} texts of up to {longest} "
            f"tokens {format_size(plan.batch)}), which do not fit into {format_size(budget)}; a "
            "smaller batch_size or max_length in [[student.rivals]] takes less"
        )
    return plan
