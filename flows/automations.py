"""What a Prefect server is asked to see to: limits, dead runs, and word of failures.

Everything is made once and found again by its name: asking twice changes nothing, and a limit that
somebody has set to another number stays as it is.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from prefect.automations import (
    AutomationCore,
    ChangeFlowRunState,
    EventTrigger,
    Posture,
    SendNotification,
)
from prefect.blocks.core import Block
from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock,
    MicrosoftTeamsWebhook,
    SlackWebhook,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict

from flows.teacher_needs import GPU_TAG
from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

TAG = "sparsedistill"
"""Of every deployment, and so of its runs and of what they tell the server."""

RUNS_LIMIT = "sparsedistill-runs"
"""The limit on runs that compute at a time; one that only looks whether to needs no slot."""

HEARTBEAT_SECONDS = 60
"""How often a served run says that it lives."""

SILENCE = timedelta(minutes=5)
"""A run that has said nothing for so long is dead; several heartbeats, so that one may be lost."""

ZOMBIES = "sparsedistill: end dead runs"
FAILURES = "sparsedistill: tell of failures"
_RUNS = "prefect.flow-run.*"
_OURS = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}


def make_limits(*, runs: int, gpus: int) -> dict[str, int]:
    """Make the limits that are missing, and return all by name.

    Args:
        runs: That compute at a time.
        gpus: Of this machine. Task runs that need one for the teacher are tagged ``gpu``; without
            any there is no limit, which would hold them back for ever.
    """
    wanted = {RUNS_LIMIT: runs, **({f"tag:{GPU_TAG}": gpus} if gpus else {})}
    return {name: _limit(name, number) for name, number in wanted.items()}


def end_dead_runs(*, silence: timedelta = SILENCE) -> None:
    """Have the server end a run that no longer says that it lives: its process was killed."""
    trigger = EventTrigger(
        after={"prefect.flow-run.Running", "prefect.flow-run.heartbeat"},
        # Any sign of life; what tells of an end is named by the state, as `Unchanged`.
        expect={"prefect.flow-run.*"},
        match={"prefect.resource.id": _RUNS},
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=silence,
    )
    message = (
        "Nothing was heard of this run: its process was killed. What it had made is kept, and the "
        "next run goes on from there."
    )
    end = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)
    _make(AutomationCore(name=ZOMBIES, description=message, trigger=trigger, actions=[end]))


def tell_of_failures(targets: Sequence[str]) -> list[str]:
    """Have the server send word of every run that failed or was killed.

    Args:
        targets: URLs of webhooks, which are secrets and go into Prefect blocks; or names of
            notification blocks that are there, as ``slack-webhook/team``.

            Without any, it stays as it was.

    Returns:
        Names of the blocks that are used.

    Raises:
        ConfigError: A target is neither; the message does not repeat it.
    """
    blocks = [_block(target) for target in targets]
    if not blocks:
        return _told_before()
    trigger = EventTrigger(
        expect={f"prefect.flow-run.{end}" for end in ("Failed", "Crashed", "TimedOut")},
        match={"prefect.resource.id": _RUNS},
        match_related=_OURS,
        posture=Posture.Reactive,
        threshold=1,
    )
    actions = [
        SendNotification(
            block_document_id=number,
            subject="{{ flow_run.name }}: {{ flow_run.state.name }}",
            body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
        )
        for _, number in blocks
    ]
    _make(AutomationCore(name=FAILURES, trigger=trigger, actions=actions))
    return [name for name, _ in blocks]


def check_targets(targets: Sequence[str]) -> None:
    """Raise ConfigError for what can be no target, as far as that is seen without a server."""
    for target in targets:
        if "://" in target:
            _kind_of(target)
        elif "/" not in target:
            raise ConfigError(
                f"--notify {target!r}: give the URL of a webhook, or a Prefect block by type and "
                "name, such as slack-webhook/team"
            )


def _told_before() -> list[str]:
    with get_client(sync_client=True) as client:
        there = client.read_automations_by_name(FAILURES)
        actions = [one for each in there for one in each.actions]
        numbers = [one.block_document_id for one in actions if isinstance(one, SendNotification)]
        blocks = [client.read_block_document(number) for number in numbers]
    return [f"{one.block_type_name or 'block'} {one.name}" for one in blocks]


def _limit(name: str, number: int) -> int:
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(name).limit
        except ObjectNotFound:
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=name, limit=number)
            )
            return number


def _make(wanted: AutomationCore) -> None:
    """Make an automation, or bring the one of that name up to date; switched off, it stays so.

    One that is as wanted is left alone: an update makes Prefect forget which runs it waits for.
    """
    with get_client(sync_client=True) as client:
        there = client.read_automations_by_name(wanted.name)
        if not there:
            client.create_automation(wanted)
            return
        wanted.enabled = there[0].enabled
        fields = set(AutomationCore.model_fields)
        if there[0].model_dump(include=fields) == wanted.model_dump(include=fields):
            return
        client.update_automation(there[0].id, wanted)


def _block(target: str) -> tuple[str, UUID]:
    """Return name and number of a notification block, which is made where a URL is given."""
    if "://" not in target:
        return target, _existing(target)
    kind = _kind_of(target)
    # The same URL is the same block however often it is given; the name tells nothing of it.
    digest = hashlib.sha256(target.encode()).hexdigest()[:8]
    name = f"sparsedistill-{digest}"
    block: Block
    if kind is CustomWebhookNotificationBlock:
        block = CustomWebhookNotificationBlock(
            name=name,
            url="{{ address }}",
            json_data={"title": "{{ subject }}", "text": "{{ subject }}\n{{ body }}"},
            secrets=SecretDict({"address": target}),
        )
    else:
        block = kind(url=target)
    # Outside an event loop, as here, it is no coroutine; the same holds of `load`.
    number = cast("UUID", block.save(name, overwrite=True))
    return f"{block.get_block_type_slug()}/{name}", number


def _existing(name: str) -> UUID:
    try:
        block = cast("Block", Block.load(name))
    except ValueError as error:
        raise ConfigError(
            f"--notify {name!r}: there is no such Prefect block; give the URL of a webhook, or a "
            "block by type and name, such as slack-webhook/team"
        ) from error
    return cast("UUID", block._block_document_id)  # Prefect has no public name for it


def _kind_of(url: str) -> type[Block]:
    """Return which of Prefect's blocks speaks to the host of a URL."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            "--notify: only http:// and https:// webhooks are taken as URLs; for mail and others "
            "make a notification block in Prefect's UI and give its type and name"
        )
    if host in ("hooks.slack.com", "hooks.slack-gov.com"):
        return SlackWebhook
    if host.endswith((".webhook.office.com", ".logic.azure.com")):
        return MicrosoftTeamsWebhook
    return CustomWebhookNotificationBlock
