"""`sparsedistill up` for real: server, served deployments, events, schedules, word of failures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.served import Up, free_port, until, up
from helpers.tiny_task import ROWS_PER_SHARD, run_config, texts, write_toml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.states import Cancelling, Scheduled

from flows import automations, corpus_watch, deployed, serving
from flows.automations import RUNS_LIMIT
from flows.cli import main
from flows.config import load_config
from flows.current import history
from flows.deployments import Served, Timing, deployments, read_served
from flows.redistill_commands import redistill_inline
from flows.serving import forget_missed, keep_switched_off
from sparsedistill.errors import ConfigError
from storage import ArtifactStore

pytestmark = pytest.mark.timeout(300)

SECRET = "s3cr3t-of-the-environment"
TIMING = Timing(cron="0 3 * * 0", timezone="UTC", watch=timedelta(minutes=15))
HOOK = "h00k-that-nobody-may-see"


@dataclass(frozen=True)
class Task:
    """A run with a model that was promoted, its files, and who is told of failures."""

    config: Path
    out: Path
    sources: Path
    store: ArtifactStore
    told: list[dict[str, Any]]
    up: Up


class _Hook(BaseHTTPRequestHandler):
    told: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.told.append({"path": self.path, **json.loads(body)})
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def config(directory: Path, tiny_data: Path, small: Mapping[str, Any]) -> Path:
    """A configuration with a current model. Its store is given by a relative path."""
    data = Path(shutil.copytree(tiny_data, directory / "data"))
    config = run_config(data, directory / "store", **small)
    file = write_toml(directory / "tiny.toml", config)
    done = redistill_inline(load_config(file), str(directory / "runs" / "tiny"))
    assert done.outcome == "promoted"
    relative = {**config, "data": "data", "run": {**config["run"], "store": "store"}}
    return write_toml(file, relative)


@pytest.fixture(scope="module")
def task(directory: Path, config: Path) -> Iterator[Task]:
    """The configuration, served."""
    told: list[dict[str, Any]] = []
    hook = ThreadingHTTPServer(("127.0.0.1", 0), type("Hook", (_Hook,), {"told": told}))
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    environment = {
        "SPARSEDISTILL_NOTIFY": f"http://127.0.0.1:{hook.server_port}/{HOOK}",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    try:
        with up([config], directory, port=free_port(), environment=environment) as one:
            yield Task(
                config,
                directory / "runs" / "tiny",
                directory / "data" / "corpus.txt",
                ArtifactStore(directory / "store"),
                told,
                one,
            )
    finally:
        hook.shutdown()
        hook.server_close()


@pytest.fixture
def at_home(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `up` runs, so that relative paths are the same here."""
    monkeypatch.chdir(directory)


def page(run: Any) -> str:
    """The verdict on the page of a run."""
    only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    with get_client(sync_client=True) as client:
        (found,) = [
            one.data
            for one in client.read_artifacts(artifact_filter=only)
            if one.key == "redistill-tiny"
        ]
    assert isinstance(found, str)
    return found


def test_a_deployments_flow_finds_what_the_command_line_made(task: Task, at_home, tmp_path: Path):
    state = deployed.distill(str(task.config), out=str(tmp_path), return_state=True)
    assert state.name == "Cached"
    assert state.message.startswith("Nothing had to be computed. ")
    assert (tmp_path / "model" / "config.json").is_file()


def test_a_deployments_flow_leaves_the_current_model_in_its_place(task: Task, at_home):
    def in_use() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (task.out / "model").iterdir()}

    before = in_use()
    state = deployed.distill(str(task.config), ("package.dtype=int8",), return_state=True)
    assert "runs/tiny keeps the current model, this one is in runs/tiny/candidate" in state.message
    assert "\u00a0" not in state.message
    assert (task.out / "candidate" / "model" / "config.json").is_file()
    assert in_use() == before


def test_the_pages_of_a_server_at_another_port_ask_that_server(task: Task):
    with urllib.request.urlopen(f"{task.up.api.removesuffix('/api')}/ui-settings") as answer:
        assert json.load(answer)["api_url"] == task.up.api
    assert f"elsewhere  export PREFECT_API_URL={task.up.api}\n" in task.up.said()


def test_the_run_of_the_schedule_ends_at_once_where_nothing_has_changed(task: Task):
    before = {path: path.stat().st_mtime_ns for path in Path(task.store.url).glob("*/*/*")}
    decisions, said = history(task.store, "tiny"), len(task.up.said())
    run = task.up.ended(task.up.schedules_next("redistill/tiny"))
    assert (run.name, run.state_name) == ("redistill tiny: schedule", "Unchanged")
    assert run.state is not None
    assert (run.state.message or "").startswith("nothing has changed since ")
    assert {path: path.stat().st_mtime_ns for path in Path(task.store.url).glob("*/*/*")} == before
    assert history(task.store, "tiny") == decisions
    # Not asked of the server, which hears of task runs some time after they have ended.
    told = until(
        lambda: "Unchanged" in task.up.said()[said:] and task.up.said()[said:],
        "the last line of the run",
        task.up,
    )
    assert "| Flow run '" in told
    assert "| Task run '" not in told


def test_a_corpus_that_grew_is_redistilled_by_event_and_the_new_model_promoted(task: Task, at_home):
    made = {kind: keys(task.store, kind) for kind in ("teacher", "ngrams", "logits", "student")}
    grown = [text for text, _ in texts(1200, seed=0)[800:]]
    with task.sources.open("a", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in grown)

    watch = task.up.ended(task.up.schedules_next("watch-corpus/tiny"))
    assert watch.state_name == "Changed"
    with get_client(sync_client=True) as client:
        (started,) = until(
            lambda: [
                one
                for one in task.up.runs_of(client, "redistill/tiny")
                if one.created_by is not None and one.created_by.type == "AUTOMATION"
            ],
            "a run that the event has started",
            task.up,
        )
    run = task.up.ended(started.id)
    assert (run.name, run.state_name) == ("redistill tiny: corpus changed", "Promoted")

    shards = len(grown) // ROWS_PER_SHARD
    new = {kind: keys(task.store, kind) - before for kind, before in made.items()}
    assert {kind: len(some) for kind, some in new.items()} == {
        "teacher": 0, "ngrams": shards, "logits": shards, "student": 1,
    }  # fmt: skip
    *_, first, second = history(task.store, "tiny")
    assert second.verdict == "promoted"
    assert second.fingerprint["corpus"] != first.fingerprint["corpus"]
    told = page(run.id)
    assert "tiny: the new model is the current one" in told
    assert f"| logits | {shards} | 6 |" in told
    assert "| dev | 40 |" in told

    again = deployed.watch_corpus(str(task.config), return_state=True)
    assert (again.name, again.message) == (
        "Unchanged",
        f"nothing new since decision {second.number}",
    )


def keys(store: ArtifactStore, kind: str) -> set[str]:
    return {one.key for one in store.artifacts(kind)}


@contextmanager
def unheard(task: Task, *, words: int) -> Iterator[None]:
    """Have no run decide about what is told in the block, nor about what its sources were then."""
    content, stat = task.sources.read_bytes(), task.sources.stat()
    since = datetime.now(UTC).isoformat()
    with get_client(sync_client=True) as client:
        trigger = client.read_automations_by_name("redistill tiny when its corpus has changed")[0]
        client.pause_automation(trigger.id)
        try:
            yield
            event = {"name": [corpus_watch.CORPUS_CHANGED]}
            heard = {"filter": {"event": event, "occurred": {"since": since}}}
            until(
                lambda: (
                    client.request("POST", "/events/filter", json=heard).json()["total"] == words
                ),
                "what was told",
                task.up,
            )
        finally:
            task.sources.write_bytes(content)
            os.utime(task.sources, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            client.resume_automation(trigger.id)


def test_a_change_is_told_once_however_often_it_is_seen(task: Task, at_home):
    """Else every look while a long re-distillation is under way would start another."""
    looks = []
    with unheard(task, words=2):
        for line in ("a text that nobody has seen", "and one more"):
            with task.sources.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
            looks += [deployed.watch_corpus(str(task.config), return_state=True) for _ in range(2)]
    assert [one.name for one in looks] == ["Changed", "Told", "Changed", "Told"]
    assert "told already" in looks[1].message


def test_a_change_is_told_again_where_nothing_came_of_it(
    task: Task, at_home, monkeypatch: pytest.MonkeyPatch
):
    """A run that was ended is started by nobody else; nor is one that never began."""

    def look() -> Any:
        return deployed.watch_corpus(str(task.config), return_state=True)

    with unheard(task, words=3), get_client(sync_client=True) as client:
        with task.sources.open("a", encoding="utf-8") as file:
            file.write("a text that will be told of three times\n")
        assert (look().name, look().name) == ("Changed", "Told")
        monkeypatch.setattr(corpus_watch, "_UNHEARD", timedelta(0))
        assert "told again" in (look().message or "")
        run = task.up.start("redistill/tiny", settings=["teacher.epochs=5000"])
        until(lambda: client.read_flow_run(run).state_name == "Running", "a run", task.up)
        assert look().name == "Told"
        client.set_flow_run_state(run, Cancelling(), force=True)
        assert task.up.ended(run, killed=True).state_name == "Cancelled"
        with monkeypatch.context() as patched:
            # The run that the last word starts may not be there yet.
            patched.setattr(corpus_watch, "_UNHEARD", timedelta(hours=1))
            assert look().name == "Told"
        assert "told again" in (look().message or "")
        end = look()
        assert (end.name, "told 3 times: it is not told again" in end.message) == ("Told", True)


def test_a_run_that_waits_for_its_slot_says_so(task: Task):
    with get_client(sync_client=True) as client:

        def taken(slots: int) -> None:
            update = GlobalConcurrencyLimitUpdate(active_slots=slots)
            client.update_global_concurrency_limit(RUNS_LIMIT, update)

        taken(1)
        try:
            run = task.up.start("distill/tiny")
            only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
            until(
                lambda: any(
                    one.message.startswith(f"waiting for a slot: the limit {RUNS_LIMIT} (1) is")
                    for one in client.read_logs(only)
                ),
                "a word of waiting",
                task.up,
            )
        finally:
            taken(0)
        assert task.up.ended(run).state_name in ("Completed", "Cached")


def test_a_failed_run_is_told_to_the_webhook_and_no_secret_is_anywhere(task: Task):
    failed = task.up.ended(task.up.start("distill/tiny", settings=["student.epoch=3"]))
    assert failed.state_name == "Failed"
    assert failed.state is not None
    assert "student.epoch: there is no such key; the nearest is epochs" in (
        failed.state.message or ""
    )
    told = until(lambda: list(task.told), "word of the failure", task.up)
    assert told[0]["path"] == f"/{HOOK}"
    assert told[0]["title"] == "distill tiny: Failed"
    assert "the nearest is epochs" in told[0]["text"]
    assert f"/runs/flow-run/{failed.id}" in told[0]["text"]

    said = task.up.said()
    kept = [path.read_bytes() for path in task.up.home.rglob("*") if path.is_file()]
    assert kept
    for secret in (SECRET, HOOK):
        assert secret not in said
        assert all(secret.encode() not in one for one in kept)
        stored = (path for path in Path(task.store.url).rglob("*") if path.is_file())
        assert all(secret.encode() not in path.read_bytes() for path in stored)


def test_the_form_of_a_run_is_filled_in_and_says_what_each_field_is(task: Task):
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("redistill/tiny")
    form = deployment.parameter_openapi_schema
    assert form is not None
    fields = form["properties"]
    assert list(fields) == ["config", "settings", "out", "force", "reason"]
    # The form would take a name in angle brackets for a tag, and hide it.
    assert all(
        field["description"] and "<" not in field["description"] for field in fields.values()
    )
    assert deployment.parameters == {"config": str(task.config), "out": str(task.out)}


def test_asking_again_for_limits_and_automations_changes_nothing(task: Task):
    """An update would make Prefect forget which runs it waits for."""
    with get_client(sync_client=True) as client:

        def made() -> list[Any]:
            found = client.request("POST", "/automations/filter", json={}).json()
            return sorted((one["name"], one["id"], one["updated"]) for one in found)

        before = made()
        automations.end_dead_runs()
        assert automations.tell_of_failures([]) == [f"Custom Webhook {block(client)}"]
        assert made() == before
        automations.end_dead_runs(silence=timedelta(minutes=7))
        assert made() != before
        # What somebody has set to another number is theirs.
        assert automations.make_limits(runs=5, gpus=2) == {RUNS_LIMIT: 1, "tag:gpu": 2}
        assert automations.make_limits(runs=5, gpus=0) == {RUNS_LIMIT: 1}


def test_a_schedule_that_was_switched_off_stays_off(task: Task):
    (again,) = [
        one
        for one in deployments([Served("tiny", task.config)], TIMING)
        if one.full_name == "watch-corpus/tiny"
    ]
    with get_client(sync_client=True) as client:
        there = client.read_deployment_by_name("watch-corpus/tiny")
        (schedule,) = there.schedules
        client.update_deployment_schedule(there.id, schedule.id, active=False)
        keep_switched_off(again)
        again.apply()
        (after,) = client.read_deployment_by_name("watch-corpus/tiny").schedules
    assert (after.id, after.active) == (schedule.id, False)


def test_of_the_runs_that_were_due_while_nobody_served_the_last_alone_is_done(
    task: Task, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving, "_MOST_AT_A_TIME", 2)
    (watch,) = [
        one
        for one in deployments([Served("unserved", task.config)], TIMING)
        if one.flow_name == "watch-corpus"
    ]
    deployment = watch.apply()
    with get_client(sync_client=True) as client:

        def waiting() -> list[Any]:
            return [
                one
                for one in task.up.runs_of(client, "watch-corpus/unserved")
                if one.state_name == "Scheduled"
            ]

        future = until(lambda: len(waiting()) > 3 and waiting(), "scheduled runs", task.up)
        due = future[-3:]
        for run in due:
            client.set_flow_run_state(run.id, Scheduled(), force=True)
        forget_missed(deployment)
        left = {one.id for one in waiting()}
        assert len(left & {one.id for one in due}) == 1
        assert left >= {one.id for one in future[:-3]}
        client.delete_deployment(deployment)


def block(client: Any) -> str:
    (found,) = client.read_block_documents()
    return str(found.name)


@pytest.mark.parametrize(
    "target", [f"json://host/{HOOK}", f"https:///{HOOK}", "slack-webhook/none"]
)
def test_what_is_no_webhook_and_no_block_is_refused_without_its_secret(task: Task, target: str):
    with pytest.raises(ConfigError, match=r"^--notify") as refused:
        automations.tell_of_failures([target])
    assert HOOK not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cron", "sometimes"], "--cron 'sometimes' --timezone 'UTC': no such schedule"),
        (["--timezone", "Middle-Earth"], "--timezone 'Middle-Earth': no such schedule"),
        (["--watch", "0"], "--watch 0.0: give minutes, more than none"),
        (["--notify", "foo"], "--notify 'foo': give the URL of a webhook, or a Prefect block"),
    ],
)
def test_what_cannot_work_is_said_at_once(
    config: Path, arguments: list[str], said: str, capsys, monkeypatch: pytest.MonkeyPatch
):
    # Not in this process, which has handlers of its own.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main(["up", str(config), *arguments]) == 1
    assert said in capsys.readouterr().err


def test_two_configurations_of_one_name_are_refused(config: Path, tmp_path: Path):
    other = Path(shutil.copy(config, tmp_path / "other.toml"))
    with pytest.raises(ConfigError, match="are both named 'tiny'"):
        read_served([str(config), str(other)])
