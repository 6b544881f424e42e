"""Runs that are killed at random moments until they are done: the same bytes as an undisturbed one.

Killed is everything, or one worker; on a local disk, or on an object store that fails now and then.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.chaos import (
    AHEAD,
    REACH,
    STAGES,
    Forks,
    Place,
    Story,
    Victim,
    everything,
    kill_until_done,
    local_place,
    one_worker,
)
from helpers.prefect_server import prefect_server
from helpers.tiny_task import run_config, write_toml

from flows.delivery import RunResult
from storage import ArtifactStore

MEASURED = {"evaluation", "report"}
"""Stages whose files hold times, which no two runs share."""

Bytes = dict[tuple[str, str], Any]


def bytes_of(store: ArtifactStore) -> Bytes:
    """Files, with checksums, of every artifact that is a function of its recipe."""
    return {
        (one.kind, one.key): [(file.name, file.bytes, file.sha256) for file in one.files]
        for one in store.artifacts()
        if one.kind not in MEASURED
    }


@pytest.fixture(scope="session")
def undisturbed(tiny_run: RunResult, tiny_store: Path) -> Bytes:
    """Of the run that nothing happened to."""
    assert tiny_run.computed() == 30
    return bytes_of(ArtifactStore(tiny_store))


def check(store: ArtifactStore, story: Story, undisturbed: Bytes) -> None:
    """What holds after any number of kills."""
    assert story.remade == [], "a finished artifact was made again"
    assert story.untold == [], "the log tells of everything that is built"
    assert bytes_of(store) == undisturbed
    assert [kind for kind in MEASURED if len(store.artifacts(kind)) != 1] == []
    assert [found.problems for found in store.verify() if not found.ok] == []


def files_below(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def check_no_litter(forks: Forks, url: str, *directories: Path) -> None:
    """After a garbage collection nothing temporary is left."""
    status = forks.run("store", "gc", "--store", url, "--delete", "--older-than", "0")
    assert status == 0, forks.said()
    assert [name for one in directories for name in files_below(one)] == []


def unlisted(objects: Mapping[str, tuple[bytes, object]]) -> list[str]:
    """What a bucket has beyond manifests, the files these list, and what belongs to the store."""
    listed = {"runs/store.json"}
    for path, (text, _) in objects.items():
        top, _, name = path.rpartition("/")
        if name == "manifest.json":
            fields = json.loads(text)
            files = [f"{top}/{fields['directory']}/{file['name']}" for file in fields["files"]]
            listed |= {path, *files}
    assert listed <= set(objects)
    return sorted(p for p in set(objects) - listed if not p.startswith("runs/.records/"))


def table(title: str, story: Story) -> str:
    """Kills by stage, for people."""
    rows = [f"  {stage:<16}{story.kills[stage]:>5}" for stage in (*STAGES, "between stages")]
    head = f"{title}: {story.killed} kills in {story.tries} tries, {story.seconds:.0f} s"
    return "\n".join([head, *rows])


def tell(*lines: str) -> None:
    """Print, for those who ask pytest for it."""
    sys.stdout.write("\n".join([*lines, ""]))


class Rounds:
    """Runs one configuration in one store after the other until there were enough kills."""

    def __init__(self, data: Path, directory: Path, undisturbed: Bytes) -> None:
        self.directory = directory
        self._data = data
        self._undisturbed = undisturbed
        self.story = Story()

    def until(
        self,
        forks: Forks,
        kills: int,
        *options: str,
        victim: Victim = everything,
        ahead: Sequence[int] = AHEAD,
        reach: int = REACH,
        seed: int,
        **run: Any,
    ) -> None:
        """Run on this machine's disk."""
        number = 0
        while self.story.killed < kills:
            store = self.directory / f"store-{seed}-{number}"
            self.one(
                forks, f"{store}", local_place(store), kills - self.story.killed, *options,
                victim=victim, ahead=ahead, reach=reach, seed=f"{seed} {number}", **run,
            )  # fmt: skip
            check_no_litter(forks, str(store), store / ".tmp", store / ".work", store / ".leases")
            number += 1

    def one(
        self, forks: Forks, url: str, place: Place, kills: int, *options: str,
        victim: Victim = everything, ahead: Sequence[int] = AHEAD, reach: int = REACH, seed: str,
        **run: Any,
    ) -> None:  # fmt: skip
        """Run in one store until it is done, and look at what came of it."""
        self.directory.mkdir(exist_ok=True, parents=True)
        out = self.directory / "out"
        config = run_config(self._data, Path("unused"), run={"store": url, **run})
        toml = write_toml(self.directory / "tiny.toml", config)
        story = kill_until_done(
            forks, ["distill", str(toml), "--out", str(out), *options], place,
            logs=self.directory / f"logs {seed}",
            chance=random.Random(seed), most=kills, victim=victim, ahead=ahead, reach=reach,
            struck=self.story.kills,
        )  # fmt: skip
        check(ArtifactStore(url), story, self._undisturbed)
        self.story.add(story)


@pytest.fixture
def rounds(tiny_data: Path, tmp_path: Path, undisturbed: Bytes) -> Rounds:
    return Rounds(tiny_data, tmp_path / "rounds", undisturbed)


def test_a_run_that_is_killed_a_few_times_ends_as_if_it_had_not_been(
    rounds: Rounds, tmp_path: Path
):
    with Forks(tmp_path / "log") as forks:
        rounds.until(forks, 5, "--no-prefect", seed=1)
    assert rounds.story.killed == 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_in_every_stage_on_a_local_disk(rounds: Rounds, tmp_path: Path):
    with Forks(tmp_path / "log") as forks:
        rounds.until(forks, 55, "--no-prefect", seed=2)
    tell(table("local disk, in one process", rounds.story))
    assert rounds.story.killed >= 55
    struck = {stage for stage, kills in rounds.story.kills.items() if kills}
    assert len(struck & set(STAGES)) >= 11, "kills are to be spread over the stages"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_on_an_object_store_that_fails(rounds: Rounds, tmp_path: Path, monkeypatch):
    pytest.importorskip("moto.server")
    from helpers.faulty_s3 import FaultyS3

    cache = tmp_path / "cache"
    with FaultyS3(rate=0.04, seed=3) as s3:
        variables = {**s3.environment, "SPARSEDISTILL_CACHE": str(cache)}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with Forks(tmp_path / "log", imports=["s3fs"]) as forks:
            number = 0
            while rounds.story.killed < 30:
                url = s3.make_bucket(f"round-{number}")
                place = s3_place(s3, url, cache)
                rounds.one(
                    forks, url, place, 30 - rounds.story.killed, "--no-prefect",
                    seed=f"s3 {number}",
                )  # fmt: skip
                check_no_litter(forks, url, cache / "tmp", cache / "work")
                assert unlisted(s3.objects(f"round-{number}")) == []
                number += 1
    tell(table("S3 that fails, in one process", rounds.story), s3.told())
    assert rounds.story.killed >= 30
    assert s3.failed.total() > 100


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_files_in_a_bucket_of_which_a_kill_left_no_manifest_are_collected(
    tiny_data: Path, tmp_path: Path
):
    """Of measurements: no later run makes the same bytes, so none takes their place."""
    pytest.importorskip("moto.server")
    from helpers.faulty_s3 import FaultyS3

    def kill(method: str, path: str) -> None:
        if method == "PUT" and "/evaluation/" in path and path.endswith("/manifest.json"):
            os.killpg(pid, signal.SIGKILL)
            raise ConnectionResetError("who asked is gone")

    with FaultyS3() as s3:
        url = s3.make_bucket("left")
        config = run_config(tiny_data, Path("unused"), run={"store": url})
        toml = write_toml(tmp_path / "tiny.toml", config)
        run = ["distill", str(toml), "--out", str(tmp_path / "out"), "--no-prefect"]
        cache = tmp_path / "cache"
        variables = {**s3.environment, "SPARSEDISTILL_CACHE": str(cache)}
        with Forks(tmp_path / "log", variables, ["s3fs"]) as forks:
            s3.on_request = kill
            pid = forks.start(run)
            assert forks.wait() == -signal.SIGKILL, forks.said()
            s3.on_request = lambda method, path: None
            assert forks.run(*run) == 0, forks.said()
            left = unlisted(s3.objects("left"))
            assert {path.split("/")[1] for path in left} == {"evaluation"}
            check_no_litter(forks, url, cache / "tmp", cache / "work")
            assert unlisted(s3.objects("left")) == []


def s3_place(s3: Any, url: str, cache: Path) -> Place:
    """A store in a bucket, as the server has it."""
    bucket, _, _ = url.removeprefix("s3://").partition("/")
    seen: set[str] = set()

    def note(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/manifest.json") and f"/{bucket}/" in path:
            seen.add(path)

    def manifests() -> dict[str, tuple[bytes, object]]:
        objects = s3.objects(bucket)
        return {name: one for name, one in objects.items() if name.endswith("/manifest.json")}

    s3.on_request = note
    return Place(manifests, lambda: sorted((cache / "tmp").glob("*")), lambda: len(seen))


@contextmanager
def forks_under_prefect(directory: Path, *imports: str) -> Iterator[Forks]:
    """Runs that talk to a Prefect server of their own."""
    with prefect_server(directory / "prefect") as variables:
        modules = ["prefect", "flows.prefect_runner", *imports]
        with Forks(directory / "log", variables, modules) as forks:
            yield forks


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_under_prefect(rounds: Rounds, tmp_path: Path):
    with forks_under_prefect(tmp_path) as forks:
        rounds.until(forks, 15, seed=4, runner="threads", workers=2)
    tell(table("local disk, Prefect with threads", rounds.story))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("victim", [everything, one_worker])
@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_kills_of_runs_with_workers(rounds: Rounds, tmp_path: Path, runner: str, victim: Victim):
    with forks_under_prefect(tmp_path) as forks:
        if victim is everything:
            rounds.until(forks, 4, seed=5, runner=runner, workers=2)
        else:
            # A run survives the death of a Dask worker, so its next kill is in another run, and is
            # to be in another stage.
            rounds.until(
                forks, 6, seed=5, runner=runner, workers=2, victim=victim,
                ahead=(2, 8, 14, 20, 26), reach=len(STAGES),
            )  # fmt: skip
    tell(table(f"local disk, Prefect with {runner}, {victim.__name__} killed", rounds.story))
    if victim is one_worker:
        struck = {stage for stage, kills in rounds.story.kills.items() if kills}
        assert len(struck & set(STAGES)) >= 3, "kills are to be spread over the stages"
