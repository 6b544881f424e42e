"""Looking whether what a model was made of has changed, and telling of it: ``corpus.changed``.

A change is told once, however often it is seen, for the run that it starts may take hours. It is
told again where that run was ended before its end, or never began: nobody would start another. But
three times at the most: what ends each run has to be mended, as what has one fail.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed

from flows import redistillation
from storage import ArtifactStore

if TYPE_CHECKING:
    from prefect import State

    from flows.config import DistillConfig
    from storage import JSON, Record

CORPUS_CHANGED = "corpus.changed"
"""The event that starts a re-distillation."""

# Of the store: which change was told of last, for each run's name.
_RECORDS = "told-"
# An event, and the run that it starts, take some seconds to be there.
_UNHEARD = timedelta(minutes=2)
# The server's clock may be another than ours.
_APART = timedelta(seconds=30)
_MOST_TIMES = 3


def corpus_resource(name: str) -> str:
    """Return what the event ``corpus.changed`` is about, for the run of that name."""
    return f"corpus.{name}"


def watch(config: DistillConfig) -> State[Any]:
    """Look, and tell of what is new; raises what ``redistillation.look`` does."""
    seen = redistillation.look(config)
    changes = sorted({"corpus", "dataset"}.intersection(seen.changes)) if seen.changed else []
    if seen.current is None:
        return _unchanged(f"{config.name} has no model yet; start redistill/{config.name} for one")
    if not changes:
        return _unchanged(f"nothing new since decision {seen.last}")
    what = " and ".join(changes)
    store, records = ArtifactStore(config.run.store), f"{_RECORDS}{config.name}"
    told = store.records(records)
    now: dict[str, JSON] = {"fingerprint": dict(seen.fingerprint), "after": seen.last}
    same = list(takewhile(lambda record: record.content == now, reversed(told)))
    if len(same) >= _MOST_TIMES:
        return Completed(
            name="Told",
            message=f"the {what} changed, and that was told {len(same)} times: it is not told "
            f"again. If no redistill/{config.name} is under way, see what ended the last ones, "
            "and start it",
        )
    if same and (_just(same[0]) or not _came_to_nothing(config.name, same[-1])):
        return Completed(name="Told", message=f"the {what} changed, and that was told already")
    emit_event(
        event=CORPUS_CHANGED,
        resource={
            "prefect.resource.id": corpus_resource(config.name),
            "prefect.resource.name": config.name,
        },
        payload={"changes": changes, "fingerprint": dict(seen.fingerprint)},
    )
    # Remembered afterwards: told twice is once too often, and a second run finds nothing to do.
    store.add_record(records, now, after=told[-1].number if told else 0)
    how = "told again, for no run came to its end" if same else "told"
    return Completed(name="Changed", message=f"the {what} changed: {how} as {CORPUS_CHANGED}")


def _just(told: Record) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(told.created) < _UNHEARD


def _came_to_nothing(name: str, told: Record) -> bool:
    """Return whether all runs since a change was told first were ended early, or there was none."""
    since, now = datetime.fromisoformat(told.created), datetime.now(UTC)
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(f"redistill/{name}")
        except ObjectNotFound:
            return False
        runs = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            flow_run_filter=FlowRunFilter(
                expected_start_time=FlowRunFilterExpectedStartTime(
                    after_=since - _APART, before_=now + _APART
                )
            ),
        )
    # What had ended before is of an earlier change.
    states = [
        run.state
        for run in runs
        if run.state is not None and (run.end_time is None or run.end_time >= since)
    ]
    return all(state.is_cancelled() or state.is_crashed() for state in states)


def _unchanged(message: str) -> State[Any]:
    return Completed(name="Unchanged", message=message)
