"""How the jobs of a stage are put together into task runs: few, and none left over at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.stage import Job

MOST_CHUNKS = 40


def chunks(jobs: Sequence[Job], *, workers: int) -> Iterator[list[Job]]:
    """Yield the jobs of each task run, in order.

    There are about forty, as many for each worker as for any other, so that no worker is idle while
    others do their last ones: three workers get 39 chunks, sixteen get 32, and a hundred a hundred.
    Their sizes differ by one job at most.

    Args:
        jobs: Of one stage.
        workers: That work at a time.
    """
    rounds = max(1, MOST_CHUNKS // workers)
    count = min(len(jobs), rounds * workers)
    for number in range(count):
        yield list(jobs[number * len(jobs) // count : (number + 1) * len(jobs) // count])


def chunk_name(stage: str, jobs: Sequence[Job]) -> str:
    """Return what the task run of some jobs is called."""
    first, last = jobs[0].label, jobs[-1].label
    if len(jobs) == 1:
        return f"{stage} {first}".strip()
    return f"{stage} {first} to {last} ({len(jobs)})"
