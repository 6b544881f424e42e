"""A run by the configuration it is given, inside any flow: workers, graph, log, work."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from helpers import light_stage
from helpers.tiny_task import run_config, write_toml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL

from flows import workers
from flows.cli import main
from flows.config import DistillConfig, parse_config
from flows.errors import RunFailedError
from flows.pipeline import Pipeline, Step
from flows.prefect_runner import distill, run_in_flow, run_pipeline, run_with_prefect
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.stage import Job, Stage

pytestmark = pytest.mark.usefixtures("server")
LOG = logging.getLogger("tasks.made_up")


def last_run(name: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=10)
    return next(run for run in found if run.name.startswith(name))


def until(ask: Callable[[], Any]) -> Any:
    """What the server says once it has heard of everything, which it does a little later."""
    for _ in range(300):
        found = ask()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("the server never heard of it")


def task_runs(run: FlowRun, count: int) -> list[TaskRun]:
    def ask() -> list[TaskRun] | None:
        with get_client(sync_client=True) as client:
            one = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
            found = client.read_task_runs(flow_run_filter=one)
        done = [each for each in found if each.state and each.state.is_final()]
        return found if len(done) == len(found) == count else None

    return until(ask)


def messages(run: FlowRun, wanted: str) -> list[str]:
    def ask() -> list[str] | None:
        with get_client(sync_client=True) as client:
            only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
            found = [log.message for log in client.read_logs(only)]
        return found if any(wanted in message for message in found) else None

    return until(ask)


def artifact(run: FlowRun, key: str) -> Any:
    with get_client(sync_client=True) as client:
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        found = [one for one in client.read_artifacts(artifact_filter=only) if one.key == key]
    assert len(found) == 1
    return json.loads(found[0].data)


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Any) -> None:
    LOG.warning("something about %s", job.label)
    if job.runtime.get("fails"):
        raise ValueError("it cannot be made")
    writer.path("x.txt").write_text(job.label)
    writer.statistics["rows"] = 10


class Small(Pipeline):
    """Two stages of some jobs, the second of which needs the first."""

    def __init__(self, config: DistillConfig, *, jobs: int = 4, fails: bool = False) -> None:
        self.config = config

        def of(kind: str, **runtime: Any) -> Callable[[Any], list[Job]]:
            return lambda _: [
                Job(Recipe(kind, 1, {"n": n}), runtime, f"shard {n}") for n in range(jobs)
            ]

        self.steps = (
            Step(Stage("ngrams", 1, build), (), of("ngrams")),
            Step(Stage("features", 1, build), ("ngrams",), of("features", fails=fails)),
        )


@pytest.fixture
def configure(tmp_path: Path):
    def make(**run: Any) -> DistillConfig:
        return parse_config(
            {
                **run_config(tmp_path, tmp_path / "store"),
                "run": {"store": str(tmp_path / "store"), "threads": 1, **run},
            }
        )

    return make


@flow(name="whole", flow_run_name="whole")
def whole(config: DistillConfig, pipeline: Any) -> int:
    """As ``distill`` has it: a parameter that only flows know."""
    assert pipeline.config is config
    return run_pipeline(pipeline).computed()


@flow(name="somebody-elses", flow_run_name="somebody else's")
def outer(pipeline: Any) -> int:
    return run_pipeline(pipeline).computed()


def test_the_workers_of_a_run_inside_any_flow_are_those_its_configuration_asks_for(
    configure, monkeypatch: pytest.MonkeyPatch
):
    """A deployment calls the flow as it is: nobody chooses its task runner beforehand."""
    started: list[str] = []
    real = workers.task_runner

    def spy(config: DistillConfig) -> Any:
        started.append(config.run.runner)
        return real(config)

    monkeypatch.setattr(workers, "task_runner", spy)
    assert outer(Small(configure(runner="threads", workers=3))) == 8
    assert started == ["threads"]
    # What is there already starts nothing, whatever the configuration says.
    assert outer(Small(configure(runner="processes", workers=2))) == 0
    assert started == ["threads"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("runner", ["processes", pytest.param("dask", marks=pytest.mark.slow)])
def test_a_worker_imports_what_its_stage_needs_and_not_the_whole_pipeline(configure, runner: str):
    """Of the run it is told the name: its flow and configuration would bring all stages along."""
    pytest.importorskip("prefect_dask")
    pipeline = Small(configure(runner=runner, workers=1), jobs=1)
    job = Job(Recipe("ngrams", 1, {}), label="shard 0")
    pipeline.steps = (Step(Stage("ngrams", 1, light_stage.build), (), lambda _: [job]),)
    with patch.dict(os.environ):  # Dask sets its workers' variables in this process, for good
        assert whole(pipeline.config, pipeline) == 1
    (made,) = ArtifactStore(pipeline.config.run.store).artifacts("ngrams")
    found = ArtifactStore(pipeline.config.run.store).get(made.kind, made.key)
    modules = set(found.path("modules.txt").read_text().split())
    assert {"prefect", "tasks.prefect_task", "helpers.light_stage"} <= modules
    assert modules.isdisjoint({"torch", "flows.pipeline", "flows.config", "transformers"})
    assert last_run("whole").state_name == "Completed"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("runner", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_task_run_knows_what_it_came_after_and_its_log_is_on_the_page_of_the_run(
    configure, runner: str, tmp_path: Path
):
    log = tmp_path / "run.jsonl"
    config = configure(runner=runner, workers=2, log=str(log))
    assert outer(Small(config, jobs=3)) == 6
    run = last_run("somebody else's")
    by_name = {one.name: one for one in task_runs(run, 6)}
    first = {by_name[f"ngrams shard {n}"].id for n in range(3)}
    for number in range(3):
        after = by_name[f"features shard {number}"].task_inputs["wait_for"]
        assert {one.id for one in after} == first
    told = messages(run, "features shard 2: something about shard 2")
    assert any("ngrams shard 0: ngrams/" in line and " made in " in line for line in told)
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    odd = {(o["run"], o["stage"], o["shard"]) for o in lines if "something" in o["message"]}
    shards = [f"shard {number}" for number in range(3)]
    assert odd == {("tiny", stage, shard) for stage in ("ngrams", "features") for shard in shards}
    made = [line for line in lines if " made in " in line["message"]]
    assert len(made) == 6
    assert all(line["work"]["rows"] == 10 for line in made)
    processes = {line["process"] for line in made}
    assert len(processes) == 1 if runner == "threads" else len(processes) <= 2

    # Again: one task run a stage, and still the edge between them.
    assert outer(Small(config, jobs=3)) == 0
    again = {one.name: one for one in task_runs(last_run("somebody else's"), 2)}
    (edge,) = again["features shard 0 to shard 2 (3)"].task_inputs["wait_for"]
    assert edge.id == again["ngrams shard 0 to shard 2 (3)"].id
    assert {one.state_name for one in again.values()} == {"Cached"}


def test_the_page_of_a_run_says_what_each_stage_took(configure):
    outer(Small(configure(workers=2), jobs=3))
    rows = artifact(last_run("somebody else's"), "work")
    assert [(row["stage"], row["made"], row["cached"], row["rows"]) for row in rows] == [
        ("ngrams", 3, 0, "30"),
        ("features", 3, 0, "30"),
    ]
    assert all(row["written"] and row["work"] and row["rows/s"] for row in rows)


def test_a_run_that_fails_says_what_its_stages_took_too(configure):
    with pytest.raises(RunFailedError, match="it cannot be made"):
        outer(Small(configure(), jobs=3, fails=True))
    rows = artifact(last_run("somebody else's"), "work")
    assert [(row["stage"], row["made"]) for row in rows] == [("ngrams", 3)]


def test_a_failed_run_leaves_its_claim_and_the_next_one_that_ends_well_removes_it(
    configure, tmp_path: Path
):
    claims = tmp_path / "store" / ".leases"
    with pytest.raises(RunFailedError):
        outer(Small(configure(), jobs=3, fails=True))
    assert len(list(claims.iterdir())) == 1
    outer(Small(configure(), jobs=3))
    assert list(claims.iterdir()) == []


def test_a_run_claims_what_it_relies_on_before_it_looks_for_it(
    own_data: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
):
    """Jobs and inputs, and the shards of the corpus, which are nobody's inputs at first."""
    from storage.leases import Lease

    claimed: set[tuple[str, str]] = set()
    use, find_all = Lease.use, ArtifactStore.find_all

    def spy(self: Lease, names: Any) -> bool:
        listed = list(names)
        claimed.update(listed)
        return use(self, listed)

    def look(self: ArtifactStore, recipes: Sequence[Recipe]) -> Any:
        looked = {(one.kind, one.key) for one in recipes if one.kind != "corpus_shard"}
        assert looked <= claimed | teachers
        return find_all(self, recipes)

    store = ArtifactStore(own_store)
    teachers = {(one.kind, one.key) for one in store.artifacts("teacher")}
    monkeypatch.setattr(Lease, "use", spy)
    monkeypatch.setattr(ArtifactStore, "find_all", look)
    config = parse_config(run_config(own_data, own_store))

    @flow(name="claims")
    def claims() -> int:
        return run_in_flow(config).computed()

    assert claims() == 0
    everything = {(one.kind, one.key) for one in store.artifacts()}
    assert claimed == everything


def test_the_log_option_writes_a_line_for_every_artifact(
    own_data: Path, tmp_path: Path, small: Mapping[str, Any], monkeypatch, capsys
):
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-told")
    config = write_toml(tmp_path / "t.toml", run_config(own_data, tmp_path / "store", **small))
    log = tmp_path / "run.jsonl"
    assert main(["distill", str(config), "--out", str(tmp_path / "out"), "--log", str(log)]) == 0
    said = capsys.readouterr().out
    assert "rows/s" in said
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    made = {line["artifact"] for line in lines if "artifact" in line}
    there = ArtifactStore(tmp_path / "store").artifacts()
    assert made == {f"{m.kind}/{m.key}" for m in there if m.kind != "corpus_shard"}
    assert {line["run"] for line in lines} == {"tiny"}
    assert "not-to-be-told" not in log.read_text("utf-8")


def test_a_log_that_cannot_be_written_is_an_error_before_anything_else(
    own_data: Path, tmp_path: Path, capsys
):
    config = write_toml(tmp_path / "t.toml", run_config(own_data, tmp_path / "store"))
    assert main(["distill", str(config), "--log", str(tmp_path / "no" / "log")]) == 1
    assert str(tmp_path / "no" / "log") in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_runs_by_the_flow_itself_and_by_the_function_are_the_same(own_data, own_store, tmp_path):
    config = parse_config(run_config(own_data, own_store))
    for run in (distill, run_with_prefect):
        assert run(config, str(tmp_path / "out")).computed() == 0
