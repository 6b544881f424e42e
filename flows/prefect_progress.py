"""What the page of a flow run shows of work under way: Prefect artifacts, told by the jobs."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING, Any

from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from tasks.progress import Figures

_SECONDS_BETWEEN_UPDATES = 3.0
_SECONDS_OF_SILENCE = 60.0
# Work waits for the answer.
_SECONDS_TO_ANSWER = 10.0
_MOST_LOOKS = 200


class ProgressArtifacts:
    """One progress artifact a stage, and a table of the looks at ``dev`` of those that train."""

    def __init__(self) -> None:
        self._shares: dict[str, dict[str, float]] = {}
        self._done: dict[str, float] = {}
        self._artifacts: dict[str, UUID] = {}
        self._updated: dict[str, float] = {}
        self._looks: dict[str, list[dict[str, Any]]] = {}
        self._looks_shown: dict[str, int] = {}
        self._shown: dict[str, float] = {}
        self._silent_until = 0.0
        self._lock = Lock()

    def expect(self, stage: str, keys: Sequence[str]) -> None:
        """Take note of a stage's jobs, all still to be done."""
        if keys:
            self._shares[stage] = dict.fromkeys(keys, 0.0)
            self._done[stage] = 0.0

    def finish(self, stage: str, key: str, *, cached: bool) -> None:
        """Take note that a job is done, or had been."""
        del cached
        try:
            self.advance(stage, key, 1.0)
        finally:
            with self._lock:
                self._show_looks(stage, last=self._share_done(stage) == 1)

    def measured(self, stage: str, key: str, label: str, figures: Figures) -> None:
        """Add a look at ``dev`` to the table of the stage."""
        del key
        with self._lock:
            self._looks.setdefault(stage, []).append({"of": label, **figures})
            if time.monotonic() - self._shown.get(stage, 0.0) >= _SECONDS_BETWEEN_UPDATES:
                self._show_looks(stage)

    def advance(self, stage: str, key: str, share: float) -> None:
        """Take note of how far a job is; Prefect hears of it every few seconds.

        A server that does not answer is asked once a minute: who tells is in the middle of work.
        """
        with self._lock:
            self._advance(stage, key, share)

    def _advance(self, stage: str, key: str, share: float) -> None:
        shares = self._shares.get(stage)
        if shares is None or key not in shares:
            return
        self._done[stage] += share - shares[key]
        shares[key] = share
        done = self._share_done(stage)
        now = time.monotonic()
        if done < 1 and now - self._updated.get(stage, 0.0) < _SECONDS_BETWEEN_UPDATES:
            return
        self._updated[stage] = now
        percent = round(100 * done, 1)
        if stage in self._artifacts:
            self._tell(
                lambda: update_progress_artifact(self._artifacts[stage], progress=percent),
                last=done == 1,
            )
        else:
            key = f"{stage.replace('_', '-')}-progress"
            made = self._tell(
                lambda: create_progress_artifact(percent, key, description=stage), last=done == 1
            )
            if made is not None:
                self._artifacts[stage] = made

    def _share_done(self, stage: str) -> float:
        """Return how much of a stage is done; all, where none of its jobs was told of."""
        if stage not in self._shares:
            return 1.0
        # The running sum may be off in its last digits.
        return min(round(self._done[stage] / len(self._shares[stage]), 9), 1.0)

    def _show_looks(self, stage: str, *, last: bool = False) -> None:
        looks = self._looks.get(stage, [])
        if len(looks) == self._looks_shown.get(stage, 0):
            return
        self._shown[stage] = time.monotonic()
        made = self._tell(
            lambda: create_table_artifact(
                key=f"{stage}-curve",
                table=looks[-_MOST_LOOKS:],
                description="Looks at dev as they came; the report draws them",
            ),
            last=last,
        )
        if made is not None:
            self._looks_shown[stage] = len(looks)

    def _tell(self, word: Callable[[], Any], *, last: bool) -> Any:  # noqa: ANN401 (Prefect's)
        """Tell Prefect; None where it did not answer a moment ago, unless it is the last word."""
        if time.monotonic() < self._silent_until and not last:
            return None
        try:
            with temporary_settings(
                {
                    PREFECT_CLIENT_MAX_RETRIES: 1 if last else 0,
                    PREFECT_API_REQUEST_TIMEOUT: _SECONDS_TO_ANSWER,
                }
            ):
                return word()
        except Exception:
            self._silent_until = time.monotonic() + _SECONDS_OF_SILENCE
            raise
