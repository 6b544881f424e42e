"""``up``: what a small team needs on one machine, a server and the deployments it serves."""

from __future__ import annotations

import logging
import os
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

from dashboards.console import plain_console
from flows.environment import environment_by_default
from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from prefect.deployments.runner import RunnerDeployment
    from rich.console import Console

    from flows.deployments import Timing
    from flows.local_server import Server

NOTIFY_VARIABLE = "SPARSEDISTILL_NOTIFY"
# Processes beside those that compute: they look, or wait for their slot.
_WAITING = 4


def up(options: argparse.Namespace) -> int:
    """Serve the deployments of configurations until told to stop."""
    with environment_by_default(PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1"):
        return _up(options)


def _up(options: argparse.Namespace) -> int:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Both end it as Ctrl-C does, from the first moment on and also in the background of a shell,
    # which ignores SIGINT: what it started goes with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    from flows import automations, deployments
    from flows.local_server import server

    served = deployments.read_served(options.configs)
    timing = deployments.Timing(
        cron=options.cron, timezone=options.timezone, watch=timedelta(minutes=options.watch)
    )
    if timing.watch < timedelta(seconds=1):
        raise ConfigError(f"--watch {options.watch}: give minutes, more than none")
    # Out of the environment before anything is started: what it starts need not know.
    notify = [*options.notify, *os.environ.pop(NOTIFY_VARIABLE, "").split()]
    automations.check_targets(notify)
    made = deployments.deployments(served, timing)
    console = plain_console()
    with server(options.port) as one:
        _serve(console, one, made, timing, runs=options.runs, notify=notify)
    console.print("stopped")
    return 0


def _serve(
    console: Console,
    server: Server,
    made: Sequence[RunnerDeployment],
    timing: Timing,
    *,
    runs: int,
    notify: Sequence[str],
) -> None:
    from flows import automations
    from flows.serving import serve

    limits = automations.make_limits(runs=runs, gpus=_gpus())
    automations.end_dead_runs()
    blocks = automations.tell_of_failures(notify)
    log = f"its log: {server.log}" if server.log else "was running, and stays when this ends"
    told = f"told to {', '.join(blocks)}" if blocks else "told to nobody: see --notify"
    when = {
        "redistill": f"{timing.cron} ({timing.timezone}), and when the corpus has changed",
        "watch-corpus": f"every {timing.watch.total_seconds() / 60:g} min",
    }
    lines = [
        ("Prefect", f"{server.ui}  ({log})"),
        # Without it, Prefect's own commands would ask another server, or none.
        ("elsewhere", f"export PREFECT_API_URL={server.shown}"),
        ("limits", ", ".join(f"{name} {number}" for name, number in limits.items())),
        ("failures", told),
        *(
            ("serves", f"{one.full_name}  {when.get(str(one.flow_name), 'on demand')}")
            for one in made
        ),
    ]

    def ready() -> None:
        for label, text in lines:
            console.print(f"{label:<11}{text}")
        console.print("Ctrl-C ends it.")

    def stopping() -> None:
        console.print("stopping: runs under way are cancelled, which may take half a minute")

    serve(
        made,
        limit=runs + _WAITING,
        heartbeat_seconds=automations.HEARTBEAT_SECONDS,
        ready=ready,
        stopping=stopping,
    )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
