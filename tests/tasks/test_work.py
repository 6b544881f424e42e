"""What making an artifact took is in its manifest; two at once make it once."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.stage import Job, Stage
from tasks.work import Work, note_bytes, together, waiting

works = st.builds(
    Work,
    rows=st.none() | st.integers(0, 10**6),
    read=st.integers(0, 10**9),
    written=st.integers(0, 10**9),
    seconds=st.floats(0, 1e4),
    waited=st.dictionaries(st.sampled_from(["turn", "device"]), st.floats(0, 100)),
    retries=st.integers(0, 3),
)


def job(number: int = 0) -> Job:
    return Job(Recipe("logits", 1, {"n": number}), label=f"shard {number}")


def write(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Any) -> None:
    writer.path("x.bin").write_bytes(b"x" * 100)
    writer.statistics["rows"] = 7


@given(st.lists(works, max_size=6))
def test_the_sum_of_work_is_the_sum_of_its_parts(parts: list[Work]):
    whole = together(parts)
    assert whole.read == sum(part.read for part in parts)
    assert whole.seconds_waited == pytest.approx(sum(part.seconds_waited for part in parts))
    known = [part.rows for part in parts if part.rows is not None]
    assert whole.rows == (sum(known) if known else None)
    halves = together([together(parts[:2]), together(parts[2:])])
    assert (halves.rows, halves.read, halves.retries) == (whole.rows, whole.read, whole.retries)
    assert halves.seconds == pytest.approx(whole.seconds)
    assert dict(halves.waited) == pytest.approx(dict(whole.waited))


def test_the_manifest_says_what_was_read_written_and_waited_for(tmp_path: Path):
    store = ArtifactStore(tmp_path / "store")
    first = Stage("logits", 1, write).run(job(), store)

    def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Any) -> None:
        source = store.get(first.kind, first.key)
        for _ in range(3):  # one file counts once
            source.path("x.bin").read_bytes()
        note_bytes(read=1000, written=50)
        with waiting("device", slow()):
            write(job, store, writer, progress)

    @contextmanager
    def slow():
        time.sleep(0.05)
        yield

    outcome = Stage("logits", 1, build).run_all([job(1)], store, retries=2)[0]
    assert outcome.work is not None
    assert (outcome.work.rows, outcome.work.read, outcome.work.written) == (7, 1100, 150)
    assert (outcome.work.retries, set(outcome.work.waited)) == (2, {"turn", "device"})
    assert outcome.work.waited["device"] >= 0.05
    written = store.get(outcome.kind, outcome.key).manifest.work
    assert written == outcome.work.to_json()
    assert written["rows_per_second"] > 0  # type: ignore[operator]


def test_what_was_there_took_nothing(tmp_path: Path):
    store, stage = ArtifactStore(tmp_path / "store"), Stage("logits", 1, write)
    made = stage.run(job(), store)
    again = stage.run(job(), store)
    assert (made.cached, again.cached, again.work) == (False, True, None)
    assert again.key == made.key


def test_only_the_first_of_a_chunk_that_is_missing_was_tried_before(tmp_path: Path):
    store, stage = ArtifactStore(tmp_path / "store"), Stage("logits", 1, write)
    stage.run(job(0), store)
    outcomes = stage.run_all([job(n) for n in range(3)], store, retries=1)
    assert [one.work and one.work.retries for one in outcomes] == [None, 1, 0]


def test_two_at_once_make_an_artifact_once_and_the_second_waits(tmp_path: Path):
    """So they share no workspace, and nothing is computed twice."""
    begun, builds = threading.Event(), []

    def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Any) -> None:
        begun.set()
        time.sleep(0.3)
        builds.append(store.workspace(job.recipe))
        write(job, store, writer, progress)

    stage, outcomes = Stage("logits", 1, build), []

    def run() -> None:
        outcomes.append(stage.run(job(), ArtifactStore(tmp_path / "store")))

    first = threading.Thread(target=run)
    first.start()
    assert begun.wait(timeout=30)
    run()
    first.join()
    assert len(builds) == 1
    by_cached = {outcome.cached: outcome for outcome in outcomes}
    assert set(by_cached) == {False, True}
    waited = by_cached[True].work
    assert waited is not None
    assert waited.seconds == 0
    assert waited.waited["turn"] > 0


def test_a_chunk_looks_for_all_its_jobs_at_once_and_once_more_for_those_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, stage = ArtifactStore(tmp_path / "store"), Stage("logits", 1, write)
    for number in range(8):
        stage.run(job(number), store)
    looks: list[int] = []
    find_all = ArtifactStore.find_all

    def spy(self: ArtifactStore, recipes: Any) -> Any:
        looks.append(len(recipes))
        return find_all(self, recipes)

    monkeypatch.setattr(ArtifactStore, "find_all", spy)
    stage.run_all([job(number) for number in range(10)], store)
    assert looks == [10, 1, 1]
