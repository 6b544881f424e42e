"""A run that cannot fit on its disk is refused before it works; one that can never is."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_task import run_config

from flows import disk_budget
from flows.config import DistillConfig, parse_config
from flows.delivery import RunResult
from flows.disk_budget import DiskBudget
from flows.errors import DiskTooSmallError, RunFailedError
from flows.estimates import Rows, sizes
from flows.inline import run_inline
from flows.pipeline import Pipeline
from storage import ArtifactStore, ArtifactWriter, StoreFullError
from tasks import corpus, features, student
from tasks.stage import Job, Stage


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have every store say that so many bytes are free."""

    def say(count: int) -> None:
        monkeypatch.setattr(ArtifactStore, "free_bytes", lambda _: count)

    return say


def stored(result: RunResult, stage: str) -> int:
    """Bytes that a stage left in the store, without its manifests."""
    size = sum(artifact.manifest.size for artifact in result.artifacts[stage])
    if stage == "corpus":
        made = result.artifacts["corpus"][0]
        store = ArtifactStore(made.directory().parents[1])
        for shard in corpus.shards(made):
            size += store.get(shard.input.kind, shard.input.key).manifest.size
    return size


def rows_of(result: RunResult, store: Path) -> Rows:
    rows = Rows()
    for stage, made in result.artifacts.items():
        rows.learn(stage, made)
    rows.measure(ArtifactStore(store), corpus.shards(result.artifacts["corpus"][0]))
    return rows


def test_what_a_stage_takes_for_certain_is_never_more_than_it_took(
    tiny_run: RunResult, tiny_store: Path, tiny_data: Path
):
    """So no run is refused that fits: this is what it is refused by."""
    config = parse_config(run_config(tiny_data, tiny_store))
    rows = rows_of(tiny_run, tiny_store)
    for stage in tiny_run.artifacts:
        assert (sizes(stage, config, rows).least or 0) <= stored(tiny_run, stage), stage


@pytest.mark.parametrize("stage", ["dataset", "corpus", "ngrams", "vocabulary", "features"])
def test_an_estimate_is_right_within_a_factor_of_two_and_the_least_of_an_artifact(
    stage: str, tiny_run: RunResult, tiny_store: Path, tiny_data: Path
):
    config = parse_config(run_config(tiny_data, tiny_store))
    need = sizes(stage, config, rows_of(tiny_run, tiny_store))
    took = stored(tiny_run, stage)
    assert need.disk is not None
    assert took / 2 <= need.disk <= 2 * took + 4096 * len(tiny_run.artifacts[stage])


def test_long_texts_take_more_of_every_stage_of_texts(tiny_data: Path, tmp_path: Path):
    config = parse_config(run_config(tiny_data, tmp_path))
    known: dict[str, Any] = {"train": 10, "dev": 10, "test": 10, "corpus": 10_000, "shards": 10}
    for stage in ("corpus", "ngrams", "features"):
        short, long = (
            sizes(stage, config, Rows(**known, text_bytes=size)).disk for size in (50.0, 500.0)
        )
        assert long > 5 * short, stage  # type: ignore[operator]


def test_a_run_that_cannot_fit_is_refused_before_the_corpus_is_read(
    own_data: Path, tmp_path: Path, free: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
):
    def refused(*_: Any) -> None:
        raise AssertionError("the corpus was begun")

    monkeypatch.setattr(corpus, "STAGE", Stage(corpus.KIND, corpus.VERSION, refused))
    free(5000)
    store = tmp_path / "store"
    with pytest.raises(DiskTooSmallError) as caught:
        run_inline(parse_config(run_config(own_data, store)))
    told = str(caught.value)
    assert f"{store} has 5 kB (5,000 bytes) free" in told
    assert "at the least" in told
    assert "check_disk = false" in told
    assert "store gc" in told
    assert caught.value.free == 5000 < caught.value.least <= caught.value.needed
    assert str(pickle.loads(pickle.dumps(caught.value))) == told


def test_what_is_guessed_by_the_size_of_sources_refuses_no_run(
    own_data: Path, tmp_path: Path, free: Callable[[int], None], caplog: pytest.LogCaptureFixture
):
    """Files may hold much beside their texts."""
    with (own_data / "corpus.jsonl").open("w") as file:
        for number in range(100):
            row = {"text": f"rose and soil {number}", "page": "x" * 20_000}
            file.write(json.dumps(row) + "\n")
    tables = {"corpus": {"sources": ["corpus.jsonl"]}, "teacher": {"finetune": False}}
    one = budget(parse_config(run_config(own_data, tmp_path / "store", **tables)))
    free(400_000)
    one.check("corpus", missing=1, jobs=1)
    assert "may need about" in caplog.text


def test_the_check_can_be_switched_off(
    own_data: Path, tmp_path: Path, free: Callable[[int], None], small: Any
):
    free(0)
    config = run_config(own_data, tmp_path / "store", **small)
    config["run"]["check_disk"] = False
    assert run_inline(parse_config(config)).computed()


def test_a_run_that_finds_everything_needs_no_space(
    own_data: Path, own_store: Path, free: Callable[[int], None]
):
    free(0)
    assert run_inline(parse_config(run_config(own_data, own_store))).computed() == 0


def test_one_new_shard_needs_the_space_of_one(
    own_data: Path, own_store: Path, free: Callable[[int], None]
):
    """Not that of a whole corpus, nor of students that may come out as they were."""
    store = ArtifactStore(own_store)
    config = parse_config(run_config(own_data, own_store))
    gone = store.artifacts("features")[0]
    store.remove(gone.kind, gone.key)
    free(gone.size)
    assert run_inline(config).computed() == 1


def budget(config: DistillConfig) -> DiskBudget:
    store = ArtifactStore(config.run.store)
    return DiskBudget(config, store, [step.name for step in Pipeline(config).steps])


def test_a_stage_of_which_part_is_there_needs_less(
    own_data: Path, own_store: Path, tiny_run: RunResult, free: Callable[[int], None]
):
    one = budget(parse_config(run_config(own_data, own_store)))
    for stage, made in tiny_run.artifacts.items():
        one.learn(stage, made)
    free(0)
    needs = []
    for missing in (6, 3):
        with pytest.raises(DiskTooSmallError) as caught:
            one.check("features", missing=missing, jobs=6)
        needs.append(caught.value.needed)
    assert needs[0] == pytest.approx(2 * needs[1], abs=2)
    one.check("features", missing=0, jobs=6)


def test_what_may_not_fit_is_a_warning(
    own_data: Path, own_store: Path, tiny_run: RunResult, free, caplog: pytest.LogCaptureFixture
):
    config = parse_config(run_config(own_data, own_store))
    one = budget(config)
    for stage, made in tiny_run.artifacts.items():
        one.learn(stage, made)
    need = sizes("features", config, rows_of(tiny_run, own_store))
    free((need.disk + need.least) // 2)  # type: ignore[operator]
    one.check("features", missing=6, jobs=6)
    assert "may need about" in caplog.text


def test_on_an_object_store_the_local_disk_is_looked_at(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: Callable[[int], None]
):
    """That is where artifacts are made before they are uploaded."""
    free(None)  # type: ignore[arg-type]
    monkeypatch.setenv("SPARSEDISTILL_CACHE", str(tmp_path / "cache"))
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(disk_budget.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskTooSmallError, match="kept on their way to") as caught:
        run_inline(parse_config(run_config(own_data, tmp_path / "store")))
    assert str(tmp_path / "cache") in str(caught.value)


def test_a_disk_that_is_full_all_the_same_is_told_with_the_bytes_that_are_still_needed(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Any
):
    def full(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Any) -> None:
        if job.label == "shard 1":
            raise OSError(errno.ENOSPC, "No space left on device")
        features.build(job, store, writer, progress)

    monkeypatch.setattr(features, "STAGE", Stage(features.KIND, features.VERSION, full))
    config = parse_config(run_config(own_data, tmp_path / "store", **small))
    with pytest.raises(RunFailedError) as caught:
        run_inline(config)
    assert isinstance(caught.value.__cause__, StoreFullError)
    told = str(caught.value)
    assert "features: StoreFullError: no space left in" in told
    assert "The rest of the stage needs about" in told
    monkeypatch.setattr(features, "STAGE", Stage(features.KIND, features.VERSION, features.build))
    assert run_inline(config).outcomes["features"][0].cached


def test_students_that_would_not_fit_the_memory_are_no_matter_of_the_disk(
    own_data: Path, tmp_path: Path
):
    run = {"student_memory": "1kB"}
    one = budget(parse_config(run_config(own_data, tmp_path / "store", run=run)))
    one.check("dataset", missing=3, jobs=3)
    assert student.KIND not in ArtifactStore(tmp_path / "store").kinds()
