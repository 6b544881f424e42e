"""Jobs are put together into chunks: all of them, once, and no worker waits for long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flows.chunking import chunk_name, chunks
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.prefect_task import Chunk, as_task
from tasks.stage import Job, Stage


def jobs(count: int) -> list[Job]:
    return [Job(Recipe("logits", 1, {"n": n}), label=f"shard {n}") for n in range(count)]


@settings(deadline=None, max_examples=200)
@given(count=st.integers(0, 700), workers=st.integers(1, 100))
def test_chunks_hold_every_job_once_and_leave_no_worker_idle_for_more_than_a_job(
    count: int, workers: int
):
    wanted = jobs(count)
    found = list(chunks(wanted, workers=workers))
    assert [job for chunk in found for job in chunk] == wanted
    assert len(found) <= max(40, workers)
    sizes = [len(chunk) for chunk in found]
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    # Jobs of the same length, each chunk to who is free first: the last is done with ideal speed
    # but for what cannot be divided.
    rounds = -(-len(found) // workers)
    assert rounds * max(sizes, default=0) <= -(-count // workers) + rounds


def test_a_chunk_is_named_by_what_is_in_it():
    assert chunk_name("logits", jobs(2)) == "logits shard 0 to shard 1 (2)"
    assert chunk_name("logits", jobs(1)) == "logits shard 0"
    assert chunk_name("teacher", [Job(Recipe("teacher", 1, {}))]) == "teacher"


def test_a_chunk_of_which_part_was_there_is_not_called_cached(tmp_path: Path):
    """Only a task run that did no work at all may say so."""
    made: list[str] = []

    def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Any) -> None:
        made.append(job.label)
        writer.path("x.txt").write_text(job.label)

    stage = Stage("logits", 1, build)
    store = ArtifactStore(tmp_path / "store")
    some = jobs(3)
    stage.run(some[0], store)
    chunk = as_task(stage).fn
    outcomes = chunk(Chunk(some), store.url)
    assert [outcome.cached for outcome in outcomes] == [True, False, False]
    assert made == ["shard 0", "shard 1", "shard 2"]
    state = chunk(Chunk(some), store.url)
    assert (state.name, state.is_completed()) == ("Cached", True)
    assert state.message == "3 there already"
