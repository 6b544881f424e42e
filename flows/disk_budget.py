"""Whether what a run still has to make fits on the disk: asked before every stage begins.

Of what is ahead, only that is counted which is certain: what is missing of the stage about to
begin, and all of a later stage of which the store has nothing yet. Estimates are right within a
factor of two, so a run is refused only where not even the least of them fits; what may not fit is
a warning in the log. How many rows a corpus has is not known before it is read: what is guessed of
it by the size of its files, which may hold more than texts, never refuses a run.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dashboards import format as fmt
from flows.errors import DiskTooSmallError
from flows.estimates import Rows, sizes
from sparsedistill.errors import SparseDistillError
from storage import StorageError, expand_sources, format_of
from storage.scratch import cache_directory
from tasks import corpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.config import DistillConfig
    from storage import ArtifactStore
    from tasks.stage import Made

_LOG = logging.getLogger(__name__)
# Of a source's bytes, those that are texts; and how much smaller texts are stored.
_TEXT_SHARE = 0.9
_STORED_SHARE = 0.5


class DiskBudget:
    """What one run needs, and what there is.

    Args:
        config: Of the run.
        store: Where it writes.
        stages: All its stages, in order.
    """

    def __init__(self, config: DistillConfig, store: ArtifactStore, stages: Sequence[str]) -> None:
        self._config = config
        self._store = store
        self._stages = tuple(stages)
        self._rows = Rows(corpus=config.corpus.expected_rows)
        self._guess: int | None = None
        self._jobs: dict[str, tuple[int, int]] = {}

    def learn(self, stage: str, made: Sequence[Made]) -> None:
        """Take note of what a stage has made or found."""
        self._rows.learn(stage, made)
        if stage == "corpus":
            self._rows.measure(self._store, corpus.shards(made[0]))

    def check(self, stage: str, *, missing: int, jobs: int) -> None:
        """Refuse to begin a stage where what is ahead does not fit.

        Args:
            stage: About to begin.
            missing: Artifacts to be made.
            jobs: All of the stage.

        Raises:
            DiskTooSmallError: There is too little space; the message says how much is needed, how
                much there is, where, and what to do.
        """
        self._jobs[stage] = missing, jobs
        if not missing or not self._config.run.check_disk:
            return
        place, free = self._place()
        if stage == "corpus" and self._rows.corpus is None:
            self._guess = self._guess_corpus()
        disk, least = self._of(stage, missing / jobs)
        for later in self._later(stage):
            more = self._of(later, 1.0)
            disk, least = disk + more[0], least + more[1]
        if self._store.free_bytes() is None:
            # Elsewhere than the store: only what is being written, and copies of what is read.
            at_a_time = min(self._config.run.workers, missing) / missing
            disk, least = round(disk * at_a_time), round(least * at_a_time)
        if free < least:
            raise DiskTooSmallError(stage, place=place, needed=disk, least=least, free=free)
        if free < disk:
            _LOG.warning(
                "%s and what comes after may need about %s, and %s has %s free",
                stage, fmt.size(disk), place, fmt.size(free),
            )  # fmt: skip

    def rest(self, stage: str, done: int) -> int | None:
        """Return about how many bytes a stage still needs that ran out of space.

        Args:
            stage: That could not go on.
            done: Artifacts of it that were made in this run.
        """
        # All of it, where the disk was full before it was known what there is.
        missing, jobs = self._jobs.get(stage, (1, 1))
        return self._of(stage, max(missing - done, 1) / jobs)[0] if jobs else None

    def _of(self, stage: str, share: float) -> tuple[int, int]:
        """Return bytes that a share of a stage takes, estimated, and at least."""
        try:
            sure = need = sizes(stage, self._config, self._rows)
            if self._rows.corpus is None and self._guess is not None:
                need = sizes(stage, self._config, replace(self._rows, corpus=self._guess))
        except SparseDistillError:  # that it does not fit the memory is said elsewhere
            return 0, 0
        return round((need.disk or 0) * share), round((sure.least or 0) * share)

    def _later(self, stage: str) -> list[str]:
        """Return the stages after one that have everything to make."""
        there = set(self._store.kinds())
        after = self._stages[self._stages.index(stage) + 1 :]
        return [name for name in after if name not in there and name not in self._jobs]

    def _place(self) -> tuple[str, int]:
        """Return where bytes are written, and how many can be."""
        free = self._store.free_bytes()
        if free is not None:
            return self._store.url, free
        place = cache_directory()
        there = next(path for path in (place, *place.parents) if path.exists())
        return f"{place} (where artifacts are kept on their way to {self._store.url})", (
            shutil.disk_usage(there).free
        )

    def _guess_corpus(self) -> int | None:
        """Guess the rows of the corpus by the size of its sources, before they are read."""
        if "corpus_shard" in self._store.kinds():
            return None  # how many of its shards are there already is not known
        config = self._config
        try:
            sources = expand_sources(config.corpus.sources, base=config.data)
        except StorageError:  # to be said by the stage itself
            return None
        stored = 0.0
        for source in sources:
            packed = format_of(source.url)[1] is not None or Path(source.url).suffix == ".parquet"
            stored += (source.bytes or 0) * (1.0 if packed else _TEXT_SHARE * _STORED_SHARE)
        rows = round(stored / self._rows.text_bytes)
        limit = config.corpus.max_rows
        return rows if limit is None else min(rows, limit)
