"""The deployments of a configuration: on demand, on a schedule, and when its corpus has changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Cron, Interval
from prefect.types.entrypoint import EntrypointType

from flows import corpus_watch, deployed
from flows.automations import TAG
from flows.config import load_config
from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from prefect import Flow
    from prefect.schedules import Schedule

COMPARE_NAME = "all"
_SLUG = "schedule"


@dataclass(frozen=True, slots=True)
class Timing:
    """When deployments run by themselves.

    Attributes:
        cron: Of re-distillations, five fields.
        timezone: In which ``cron`` is read.
        watch: Between two looks at a corpus.
    """

    cron: str
    timezone: str
    watch: timedelta


@dataclass(frozen=True, slots=True)
class Served:
    """A configuration that is served: its name and its file."""

    name: str
    file: Path


def read_served(files: Sequence[str]) -> list[Served]:
    """Read and check configurations.

    Raises:
        ConfigError: One is wrong, or two have the same name.
    """
    served: dict[str, Served] = {}
    for file in files:
        one = Served(load_config(file).name, Path(file).absolute())
        other = served.setdefault(one.name, one)
        if other.file != one.file:
            raise ConfigError(
                f"{other.file} and {one.file} are both named {one.name!r}, and runs are told apart "
                "by that name: give one another name"
            )
    return list(served.values())


def deployments(served: Sequence[Served], timing: Timing) -> list[RunnerDeployment]:
    """Return the deployments of all configurations.

    Raises:
        ConfigError: The timing cannot work.
    """
    try:
        schedule = Cron(
            timing.cron,
            timezone=timing.timezone,
            parameters={"reason": "schedule"},
            slug=_SLUG,
        )
        found = [one for config in served for one in _of(config, schedule, timing.watch)]
    except ValueError as error:
        raise ConfigError(
            f"--cron {timing.cron!r} --timezone {timing.timezone!r}: no such schedule; five fields "
            "such as '0 3 * * 0' (Sundays at three), and a zone such as Europe/Berlin"
        ) from error
    if len(served) < 2:
        return found
    sides = {
        "configs": [str(one.file) for one in served],
        "out": str(Path("runs", "comparison").absolute()),
    }
    return [*found, _deployment(deployed.compare, COMPARE_NAME, sides)]


def _of(served: Served, schedule: Schedule, watch: timedelta) -> list[RunnerDeployment]:
    config = {"config": str(served.file)}
    out = {"out": str(Path("runs", served.name).absolute())}
    changed = DeploymentEventTrigger(
        name=f"redistill {served.name} when its corpus has changed",
        expect={corpus_watch.CORPUS_CHANGED},
        match={"prefect.resource.id": corpus_watch.corpus_resource(served.name)},
        parameters={"reason": "corpus changed"},
    )
    every = Interval(watch, slug=_SLUG)
    return [
        _deployment(deployed.distill, served.name, {**config, **out}),
        _deployment(
            deployed.redistill,
            served.name,
            {**config, **out},
            schedules=[schedule],
            triggers=[changed],
        ),
        _deployment(deployed.watch_corpus, served.name, config, schedules=[every]),
    ]


def _deployment(
    flow: Flow[..., Any],
    name: str,
    parameters: dict[str, Any],
    *,
    schedules: Sequence[Schedule] = (),
    triggers: Sequence[DeploymentEventTrigger] = (),
) -> RunnerDeployment:
    made: RunnerDeployment = RunnerDeployment.from_flow(
        flow,
        name,
        parameters=parameters,
        schedules=list(schedules) or None,
        triggers=list(triggers),
        tags=[TAG],
        # By its module, so that it is found from whatever directory `up` runs in.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return made
