"""The flows that deployments run: those of the command line, told where the configuration is.

A deployment lives for months, and its configuration is a file that people edit: so a run is given
the file, reads it when it starts, and a form in Prefect's UI stays a few fields. What a run may
have set besides are single keys, as with ``--set``.

A run that finds nothing to do ends in the state ``Unchanged`` within seconds. One that computes
takes a slot of ``sparsedistill-runs``, where there is that limit, so that two that are due at the
same time do not share the memory of one machine.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect import State, flow, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from dashboards.comparison import as_summary
from dashboards.markdown import results_markdown
from dashboards.summary import headline
from flows import comparing, corpus_watch, places, redistillation
from flows.automations import RUNS_LIMIT
from flows.config import DistillConfig, load_config
from flows.delivery import RunResult, deliver
from flows.prefect_runner import run_in_flow, run_with_prefect
from flows.verdict_page import verdict_markdown
from tasks.prefect_task import logged
from tasks.raised import telling_no_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse

    from flows.redistillation import Redistilled
    from tasks.earlier import Earlier

# At the end of every process it tells that it is not done yet, which it then is.
logging.getLogger("EventsWorker").setLevel(logging.ERROR)
_LEASE_SECONDS = 60.0
_LOG = logging.getLogger(__name__)


def absolute(config: DistillConfig) -> DistillConfig:
    """Return a configuration whose paths hold wherever its work is done."""
    store = _absolute(config.run.store)
    return config.model_copy(
        update={
            "data": _absolute(config.data or "."),
            "run": config.run.model_copy(update={"store": store}),
        }
    )


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().absolute())


def _read(config: str, settings: Sequence[str]) -> DistillConfig:
    return absolute(load_config(config, overrides=settings))


def _named() -> str:
    """Return the name of a run: what it does, with what, and why."""
    parameters = runtime.flow_run.parameters
    files = parameters.get("configs") or [parameters["config"]]
    what = ", ".join(Path(file).stem for file in files)
    reason = parameters.get("reason")
    return f"{runtime.flow_run.flow_name} {what}" + (f": {reason}" if reason else "")


_FLOW: dict[str, Any] = {
    "flow_run_name": _named,
    "task_runner": ThreadPoolTaskRunner(max_workers=1),
    "persist_result": False,
}


@flow(
    name="distill",
    description="Teacher and texts in, a fast student out; only what is missing is computed.",
    **_FLOW,
)
def distill(config: str, settings: tuple[str, ...] = (), out: str = "") -> State[Any]:
    """Teacher and texts in, a fast student out; only what is missing is computed.

    Args:
        config: TOML file of the run, read when the run starts.
        settings: Keys to set for this run alone, such as student.epochs=40.
        out: Directory for report, numbers and model; runs/NAME where empty.
    """
    with telling_no_secrets():
        given = _read(config, settings)
        out = out or f"runs/{given.name}"
        with _slot():
            result = run_in_flow(given)
            place = places.place(result, given, out)
            deliver(result, place)
        told = headline(result.summary())
        if place != out:
            told += (
                f" {out} keeps the current model, this one is in {place}: "
                f"`{places.promotion_command(given, out)}` puts it in its place."
            )
        if result.computed() == 0:
            return Completed(name="Cached", message=_plain(f"Nothing had to be computed. {told}"))
        return Completed(message=_plain(f"{result.computed()} artifacts were made. {told}"))


@flow(
    name="redistill",
    description="Make the model anew where data has changed, and promote it if it is not worse.",
    **_FLOW,
)
def redistill(
    config: str,
    settings: tuple[str, ...] = (),
    out: str = "",
    force: bool = False,
    reason: str = "on demand",
) -> State[Any]:
    """Make the model anew where data has changed, and promote it if it is not worse.

    Args:
        config: TOML file of the run, read when the run starts.
        settings: Keys to set for this run alone, such as student.epochs=40.
        out: Directory of the current model and its report; runs/NAME where empty.
        force: Compute and compare although nothing has changed.
        reason: Why it runs. It becomes part of the run's name.
    """
    with telling_no_secrets():
        del reason
        return _redistill(_read(config, settings), out, force=force)


@flow(
    name="watch-corpus",
    description="See whether the data has changed since the last decision, and tell of it once.",
    **_FLOW,
)
def watch_corpus(config: str, settings: tuple[str, ...] = ()) -> State[Any]:
    """See whether the data has changed since the last decision, and tell of it once.

    Args:
        config: TOML file of the run, read when the run starts.
        settings: Keys to set for this run alone, such as corpus.max_rows=100000.
    """
    with telling_no_secrets():
        return corpus_watch.watch(_read(config, settings))


@flow(
    name="compare",
    description="Run what is missing of several configurations, and put them side by side.",
    **_FLOW,
)
def compare(
    configs: list[str], settings: tuple[str, ...] = (), out: str = "runs/comparison"
) -> State[Any]:
    """Run what is missing of several configurations, and put them side by side.

    Args:
        configs: TOML files of the runs, two or more, read when the run starts.
        settings: Keys to set in all of them for this run alone, such as student.epochs=40.
        out: Directory for page and numbers, and for each run's results.
    """
    with telling_no_secrets():
        given = [_read(config, settings) for config in configs]

        def run(config: DistillConfig, name: str) -> RunResult:
            # Never to runs/NAME, where the current model may be.
            return run_with_prefect(config, str(Path(out, name)))

        with _slot():
            compared = comparing.compare(given, run=run)
        _, page = compared.write(out)
        create_markdown_artifact(
            key="comparison",
            markdown=results_markdown(as_summary(compared.document)),
            description=f"{', '.join(compared.results)}: side by side",
        )
        return Completed(message=f"the page is {page}")


def redistill_with_prefect(
    config: DistillConfig, out: str | None = None, *, force: bool = False
) -> Redistilled:
    """Run a re-distillation as a flow of this process; see ``redistillation.redistill``."""
    # What a flow returns as a state, its caller gets as that state's data.
    return cast("Redistilled", _redistill_here(config, out, force))


@flow(
    name="redistill",
    flow_run_name="redistill {config.name}: command line",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    persist_result=False,
)
def _redistill_here(config: DistillConfig, out: str | None, force: bool) -> State[Any]:
    with telling_no_secrets():
        return _redistill(config, out, force=force)


def _redistill(config: DistillConfig, out: str | None, *, force: bool) -> State[Any]:
    place = out or f"runs/{config.name}"

    def run(config: DistillConfig, earlier: Earlier | None) -> RunResult:
        result = run_in_flow(config, earlier=earlier)
        deliver(result, places.candidate(place))
        return result

    # Looked for twice where something has changed: what waited for its slot may come too late.
    works = force or redistillation.look(config).changed
    with _slot() if works else nullcontext():
        done = redistillation.redistill(config, out=place, run=run, force=force)
    if done.outcome == "unchanged":
        return Completed(name="Unchanged", message=_plain(done.why), data=done)
    create_markdown_artifact(
        key=f"redistill-{config.name.replace('_', '-')}",
        markdown=verdict_markdown(config.name, done),
        description=f"{config.name}: {done.outcome}",
    )
    return Completed(name=done.outcome.capitalize(), message=_plain(done.why), data=done)


def _plain(text: str) -> str:
    """Return a text as a message of a state, which people search and copy: with plain spaces."""
    return text.replace("\u00a0", " ")


def _limit() -> GlobalConcurrencyLimitResponse | None:
    """Return the limit on runs, where there is one.

    A server that Prefect starts for a run alone frees no slot of a run that was killed, and knows
    of no other run: there is none with it.
    """
    if get_current_settings().api.url is None:
        return None
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(RUNS_LIMIT)
        except ObjectNotFound:
            return None


@contextmanager
def _slot() -> Iterator[None]:
    """Hold a slot of the limit on runs, where the server has that limit."""
    limit = _limit()
    if limit is None:
        yield
        return
    if limit.active_slots >= limit.limit:
        with logged("", None):
            _LOG.warning(
                "waiting for a slot: the limit %s (%d) is reached; docs/troubles.md says what to "
                "do where no run computes", RUNS_LIMIT, limit.limit,
            )  # fmt: skip
    # A short lease: the slot of a killed run is free a minute later.
    with concurrency(RUNS_LIMIT, lease_duration=_LEASE_SECONDS, strict=False):
        yield
