"""The pipeline under Prefect, against a server of its own: states, siblings, artifacts, runners."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from helpers.tiny_task import run_config, write_toml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.concurrency.services import _no_limits_cache
from prefect.settings import PREFECT_API_URL
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import prefect_runner
from flows.cli import main
from flows.config import DistillConfig, parse_config
from flows.delivery import RunResult
from flows.errors import RunFailedError
from flows.prefect_runner import run_with_prefect
from flows.teacher_needs import GPU_TAG, on_gpu
from sparsedistill.errors import ConfigError, DataError, TeacherError
from sparsedistill.model_card import CARD_FILE
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks import logits
from tasks.prefect_task import Chunk, _may_pass, as_task
from tasks.stage import Job, Stage

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def configure(own_data: Path, tmp_path: Path, small: Mapping[str, Any]):
    """Make a configuration over a store of the test's own."""

    def make(**run: Any) -> DistillConfig:
        tables = {**small, "run": run}
        return parse_config(run_config(own_data, tmp_path / "store", **tables))

    return make


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch):
    """Have the logits of one shard fail; only where tasks run in this process."""
    real = logits.STAGE

    def install(error: Exception, *, times: int = 1_000_000) -> list[str]:
        failed: list[str] = []

        def build(job: Job, *rest: Any) -> None:
            if job.label == "shard 1" and len(failed) < times:
                failed.append(job.label)
                raise error
            real.build(job, *rest)

        monkeypatch.setattr(logits, "STAGE", Stage(real.kind, real.version, build))
        return failed

    return install


def last_flow_run() -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def task_runs(count: int) -> list[TaskRun]:
    """Those of the last flow run; the server hears of them a little later than the run ends."""
    only = FlowRunFilter(id=FlowRunFilterId(any_=[last_flow_run().id]))
    found: list[TaskRun] = []
    with get_client(sync_client=True) as client:
        for _ in range(300):
            found = client.read_task_runs(flow_run_filter=only)
            ended = [run for run in found if run.state and run.state.is_final()]
            if len(ended) == len(found) == count:
                return found
            time.sleep(0.1)
    raise AssertionError(f"the server heard of {len(found)} task runs, not of {count}")


def artifacts() -> dict[str, Any]:
    """Data of the last flow run's artifacts, the newest of each key."""
    only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[last_flow_run().id]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=only)
    return {one.key: one.data for one in sorted(found, key=lambda one: one.created)}


def model_of(result: RunResult) -> dict[str, bytes]:
    package = result.artifacts["package"][0]
    return {name: package.path(name).read_bytes() for name in package.names}


def test_a_run_makes_everything_and_the_same_run_again_is_all_cached(
    configure, tmp_path: Path, small_model: dict[str, bytes]
):
    out = tmp_path / "out"
    result = run_with_prefect(configure(), str(out))
    assert last_flow_run().name == "distill tiny"
    assert result.computed() == sum(len(some) for some in result.artifacts.values())
    assert {run.state_name for run in task_runs(result.computed())} == {"Completed"}
    delivered = {path.name: path.read_bytes() for path in (out / "model").iterdir()}
    assert delivered.pop(CARD_FILE).startswith(b"---\n")
    assert delivered == small_model
    assert (out / "report.html").is_file()
    found = artifacts()
    stages = {name.replace("_", "-") for name, some in result.artifacts.items() if some}
    assert {key for key in found if key.endswith("-progress")} == {f"{s}-progress" for s in stages}
    assert {value for key, value in found.items() if key.endswith("-progress")} == {100}
    looks = json.loads(found["student-curve"])
    curve = result.artifacts["student"][0].statistics["curve"]
    assert [look["dev_accuracy"] for look in looks] == [p["dev_accuracy"] for p in curve]
    assert "DAN (KD+FT)" in found["report"]
    assert "](data:image/" in found["report"]

    again = run_with_prefect(configure(), str(out))
    assert again.computed() == 0
    # What is there already is one task run a stage, whatever the number of shards.
    runs = task_runs(len(stages))
    assert {run.state_name for run in runs} == {"Cached"}
    assert {run.state_type.value for run in runs} == {"COMPLETED"}
    assert model_of(again) == small_model


def test_a_failed_chunk_stops_no_sibling_and_the_next_run_does_only_what_is_missing(
    configure, fault, tmp_path: Path, small_model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
):
    store = ArtifactStore(tmp_path / "store")
    fault(DataError("shard 1 holds something odd"))
    with pytest.raises(RunFailedError) as caught:
        run_with_prefect(configure(), str(tmp_path / "out"))
    told = str(caught.value)
    assert "logits: DataError: shard 1 holds something odd" in told
    for stage in ("student", "finetune", "package", "evaluation", "report"):
        assert f"  {stage}: waits for the above" in told
    assert "features" not in told
    assert len(store.artifacts("logits")) == 5
    assert len(store.artifacts("features")) == 6
    assert store.artifacts("student") == []
    assert not (tmp_path / "out").exists()
    assert "shard 1 holds something odd" in artifacts()["missing"]
    made = {"dataset": 3, "corpus": 1, "ngrams": 4, "vocabulary": 1, "features": 6, "teacher": 1}
    states = {run.name: run.state_name for run in task_runs(sum(made.values()) + 6)}
    assert states["logits shard 1"] == "Failed"
    assert states["logits shard 2"] == "Completed"
    assert last_flow_run().state_name == "Failed"

    monkeypatch.setattr(logits, "STAGE", Stage(logits.KIND, logits.VERSION, logits.build))
    result = run_with_prefect(configure(), str(tmp_path / "out"))
    made = [o.kind for some in result.outcomes.values() for o in some if not o.cached]
    assert made == ["logits", "student", "finetune", "package", "evaluation", "report"]
    assert model_of(result) == small_model


def test_a_lost_connection_is_tried_again_for_that_shard_alone(configure, fault, tmp_path: Path):
    failed = fault(ConnectionResetError("connection reset by peer"), times=1)
    result = run_with_prefect(configure(), str(tmp_path / "out"))
    assert failed == ["shard 1"]
    counts = {run.name: run.run_count for run in task_runs(result.computed())}
    assert counts["logits shard 1"] == 2
    assert counts["logits shard 2"] == 1


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError("gone"), True),
        (TimeoutError("slow"), True),
        (MemoryError(), True),
        (OSError(errno.EIO, "input/output error"), True),
        (OSError(errno.ENOSPC, "no space left on device"), False),
        (PermissionError(errno.EACCES, "denied"), False),
        (FileNotFoundError(errno.ENOENT, "no such file"), False),
        (PermissionError("the server said 403"), False),
        (DataError("bad row"), False),
        (RuntimeError("a mistake"), False),
    ],
    ids=repr,
)
def test_only_what_a_retry_can_mend_is_tried_again(error: Exception, again: bool):
    assert _may_pass(Failed(data=error)) is again


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_every_task_runner_makes_the_same_bytes(
    configure, runner: str, tmp_path: Path, small_model: dict[str, bytes]
):
    if runner == "dask":
        pytest.importorskip("prefect_dask")
    # Dask sets variables for its workers' sake.
    with patch.dict(os.environ):
        result = run_with_prefect(configure(runner=runner, workers=2), str(tmp_path / "out"))
    assert model_of(result) == small_model
    progress = {value for key, value in artifacts().items() if key.endswith("-progress")}
    assert progress == {100}
    again = run_with_prefect(configure(runner=runner, workers=2), str(tmp_path / "out"))
    assert again.computed() == 0


def test_the_distill_command_runs_under_prefect(
    own_data: Path,
    own_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    config = write_toml(tmp_path / "tiny.toml", run_config(own_data, own_store))
    assert main(["distill", str(config), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "every stage was Cached" in said
    assert "DAN (KD+FT)" in said
    assert last_flow_run().state_name == "Completed"


def test_the_distill_command_says_what_is_missing(
    configure, fault, tmp_path: Path, own_data: Path, small, monkeypatch, capsys
):
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    fault(DataError("shard 1 holds something odd"))
    config = write_toml(tmp_path / "t.toml", run_config(own_data, tmp_path / "store", **small))
    assert main(["distill", str(config), "--out", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "error: the run could not make everything:" in message
    assert "  logits: DataError: shard 1 holds something odd" in message
    assert "Traceback" not in message


def test_prefects_own_command_line_talks_to_its_server(configure, tmp_path: Path):
    """With a FastAPI that is too new the server starts, flows run, and this command gets a 422."""
    run_with_prefect(configure(), str(tmp_path / "out"))
    done = subprocess.run(
        [Path(sys.executable).with_name("prefect"), "flow-run", "ls"],
        capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "distill" in done.stdout
    assert "Completed" in done.stdout.title()


@pytest.fixture
def one_slot() -> Iterator[None]:
    """A limit as `prefect concurrency-limit create gpu 1` makes it."""
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit(tag=GPU_TAG, concurrency_limit=1)
        # For five seconds a process remembers that there was none.
        _no_limits_cache.clear()
        yield
        client.delete_concurrency_limit_by_tag(tag=GPU_TAG)


def run_tagged(store: Path, build: Callable[[], None], *, tasks: int, workers: int) -> None:
    """Run jobs that call ``build`` as tagged tasks, a job each."""

    def build_one(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Any) -> None:
        build()
        writer.path("x.txt").write_text(job.label)

    @flow(name="tagged", task_runner=ThreadPoolTaskRunner(max_workers=workers))
    def tagged() -> None:
        task = as_task(Stage("logits", 1, build_one), tags=[GPU_TAG])
        jobs = [Job(Recipe("logits", 1, {"n": n}), label=f"shard {n}") for n in range(tasks)]
        futures = [task.submit(Chunk([job]), str(store)) for job in jobs]
        for future in futures:
            future.result()

    tagged()


def test_without_a_limit_tasks_that_use_a_gpu_run_at_a_time(tmp_path: Path):
    both = threading.Barrier(2, timeout=60)
    run_tagged(tmp_path / "store", lambda: both.wait() and None, tasks=2, workers=2)


def test_a_limit_in_prefect_holds_back_tasks_that_use_a_gpu(one_slot, tmp_path: Path):
    inside = threading.Semaphore(1)
    done: list[bool] = []

    def alone() -> None:
        assert inside.acquire(blocking=False), "two at a time"
        time.sleep(0.2)
        inside.release()
        done.append(True)

    run_tagged(tmp_path / "store", alone, tasks=4, workers=3)
    assert len(done) == 4


def test_what_the_teacher_has_to_do_is_tagged_where_it_does_it_on_a_gpu(
    configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made: dict[str, set[str]] = {}

    def spy(stage: Stage, *, tags: Iterable[str] = ()) -> Any:
        made.setdefault(stage.kind, set()).update(tags)
        return as_task(stage, tags=tags)

    def with_gpus(stage: str, config: DistillConfig) -> bool:
        run = config.run.model_copy(update={"teacher_devices": ("cuda:0",)})
        return on_gpu(stage, config.model_copy(update={"run": run}))

    monkeypatch.setattr(prefect_runner, "as_task", spy)
    monkeypatch.setattr(prefect_runner, "on_gpu", with_gpus)
    result = run_with_prefect(configure(), str(tmp_path / "out"))
    assert {kind for kind, tags in made.items() if tags == {GPU_TAG}} == {
        "teacher", "logits", "evaluation",
    }  # fmt: skip
    tagged = {run.task_key for run in task_runs(result.computed()) if GPU_TAG in run.tags}
    assert {key.split("-")[0] for key in tagged} <= {"run_chunk", "teacher", "logits", "evaluation"}
    assert tagged
    made.clear()
    run_with_prefect(configure(), str(tmp_path / "out"))
    assert set().union(*made.values()) == set(), "what is there already waits for no GPU"


def test_given_logits_and_the_processor_need_no_gpu(configure):
    config = configure(teacher_devices=["cpu"])
    assert not on_gpu("logits", config)
    named = configure(teacher_devices=["cuda:3", "cpu"])
    assert on_gpu("logits", named)
    assert on_gpu("teacher", named)
    assert not on_gpu("features", named)
    assert not on_gpu("logits", named.model_copy(update={"teacher": None}))


def test_a_bad_teacher_stops_the_run_before_the_corpus(configure, own_data: Path, tmp_path: Path):
    (own_data / "encoder" / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(TeacherError):
        run_with_prefect(configure(), str(tmp_path / "out"))
    assert {path.parts[-3] for path in (tmp_path / "store").glob("*/*/manifest.json")} == {
        "dataset"
    }


def test_a_teachers_device_that_is_not_there_stops_the_run_at_once(configure, tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no cuda:99 here"):
        run_with_prefect(configure(teacher_devices=["cuda:99"]), str(tmp_path / "out"))
    assert not list((tmp_path / "store").glob("*/*/manifest.json"))
