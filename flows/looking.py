"""What a run finds made, and how it claims that, so that no garbage collection takes it away.

A run writes down in the store which artifacts it relies on before it looks whether they are there.
So what it has found stays, and it need not look again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks import corpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.pipeline import Step
    from storage import Artifact, ArtifactStore, Lease
    from tasks.stage import Job


class Looker:
    """Looks for the artifacts of one run.

    Args:
        store: Where they are.
        lease: The run's claim there.
    """

    def __init__(self, store: ArtifactStore, lease: Lease) -> None:
        self._store = store
        self._lease = lease

    def look(self, step: Step, jobs: Sequence[Job]) -> list[Artifact | None]:
        """Return the artifacts that are there, None for those to be made; one listing a kind."""
        names = [(job.recipe.kind, job.recipe.key) for job in jobs]
        inputs = [
            (one.kind, one.key)
            for job in jobs
            for some in job.recipe.inputs.values()
            for one in some
        ]
        # Claimed first: where a collection was under way, this looks only when it has ended.
        self._lease.use([*names, *inputs])
        return step.stage.find_all(jobs, self._store)

    def keep(self, step: Step, artifacts: Sequence[Artifact]) -> bool:
        """Claim what was made just now with all that belongs to it.

        Returns:
            Whether it is all there: a collection may have taken old shards of the corpus while it
            was not known yet that this corpus has them.
        """
        complete = step.stage.complete
        if complete is None:
            return True
        parts = [(s.input.kind, s.input.key) for one in artifacts for s in corpus.shards(one)]
        self._lease.use(parts)
        return all(complete(one, self._store) for one in artifacts)
