"""Serving deployments: their runs, each in a process of its own, until told to stop."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, cast

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner, runner
from prefect.runner._starter_engine import EngineCommandStarter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun
    from prefect.deployments.runner import RunnerDeployment


# The most that a server tells of in one answer.
_MOST_AT_A_TIME = 200


class _Isolated(EngineCommandStarter):
    """Prefect's starter of runs, but each in a process group of its own."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as Prefect calls it
        super().__init__(**{**options, "isolate_process_group": True})


class _Runner(Runner):
    """Prefect's, but that it ends the same way on Ctrl-C and SIGTERM, and its runs before itself.

    Prefect 3.8 kills the runs, which the server then takes for running. A terminal sends Ctrl-C to
    all processes of its foreground group: a run in that group would end by itself, as `Crashed`.
    """

    async def __aenter__(self) -> Self:
        # Prefect has no option for it, but looks its starter up there.
        runner.EngineCommandStarter = _Isolated  # type: ignore[attr-defined]
        await super().__aenter__()
        propose = self._state_proposer.propose_cancelled

        async def unless_ended(run: FlowRun, updates: dict[str, Any] | None = None) -> bool:
            """Prefect would put `Cancelled` in the place of how a run has ended meanwhile."""
            state = (await self._client.read_flow_run(run.id)).state
            if state is not None and state.is_final() and not state.is_crashed():
                return False
            return await propose(run, updates)

        self._state_proposer.propose_cancelled = unless_ended  # type: ignore[assignment, method-assign]
        return self

    async def __aexit__(self, *error: Any) -> None:  # noqa: ANN401 - as Python calls it
        await self.cancel_all()
        await super().__aexit__(*error)

    def handle_sigterm(self, *_: Any) -> None:  # noqa: ANN401 - as Prefect calls it
        signal.raise_signal(signal.SIGINT)


def serve(
    deployments: Sequence[RunnerDeployment],
    *,
    limit: int,
    heartbeat_seconds: float,
    ready: Callable[[], object],
    stopping: Callable[[], object],
) -> None:
    """Register deployments and do their runs until Ctrl-C or SIGTERM.

    Args:
        deployments: To be served. Their schedules stay on when this ends, so that the next time
            finds them as they were.
        limit: Processes at a time, those that wait among them.
        heartbeat_seconds: How often a run tells the server that it lives.
        ready: Called when all are registered.
        stopping: Called when it is told to stop. From then on it is not told again: a second Ctrl-C
            would leave runs that nobody ends.
    """
    ours = _Runner(limit=limit, pause_on_shutdown=False, heartbeat_seconds=heartbeat_seconds)
    for deployment in deployments:
        keep_switched_off(deployment)
        forget_missed(cast("UUID", ours.add_deployment(deployment)))
    ready()
    with suppress(asyncio.CancelledError):
        asyncio.run(_until_told(ours, stopping))


async def _until_told(ours: _Runner, stopping: Callable[[], object]) -> None:
    """Do runs until the first Ctrl-C."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - this is one

    def stop(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Not SIG_IGN, which what is started from now on would inherit.
            signal.signal(number, lambda *_: None)
        loop.call_soon_threadsafe(task.cancel)
        stopping()

    signal.signal(signal.SIGINT, stop)
    await ours.start()


def keep_switched_off(deployment: RunnerDeployment) -> None:
    """Have a schedule that somebody switched off stay so when its deployment is registered."""
    with get_client(sync_client=True) as client:
        try:
            there = client.read_deployment_by_name(deployment.full_name)
        except ObjectNotFound:
            return
    off = {one.slug for one in there.schedules if not one.active}
    for schedule in deployment.schedules or []:
        if schedule.slug in off:
            schedule.active = False


def forget_missed(deployment: UUID) -> None:
    """Remove the runs that were due while nobody served a deployment, but for the last one.

    They would all start at once now, and the last one does what they would have done.
    """
    due = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(before_=datetime.now(UTC)),
    )
    with get_client(sync_client=True) as client:

        def missed() -> list[FlowRun]:
            """Return the first ones of those that are left."""
            found = client.read_flow_runs(
                deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
                flow_run_filter=due,
                sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
                limit=_MOST_AT_A_TIME,
            )
            return [one for one in found if one.auto_scheduled]

        while len(some := missed()) > 1:
            for run in some[:-1]:
                client.delete_flow_run(run.id)
