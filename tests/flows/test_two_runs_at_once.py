"""Two runs on one store at the same time, and garbage collections beside them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.chaos import Forks, local_place
from helpers.in_hand import STAGES, built, stop_at_work
from helpers.prefect_server import prefect_server
from helpers.tiny_task import run_config, write_toml

from flows.config import parse_config
from flows.delivery import RunResult
from flows.inline import run_inline
from storage import ArtifactStore, Recipe

MEASURED = {"evaluation", "report"}
LATE = STAGES[STAGES.index("student") :]
NOBODYS = Recipe("features", 1, {"of": "nobody"})
OTHER: Mapping[str, Mapping[str, Any]] = {
    "vocabulary": {"size": 500},
    "student": {"width": 6, "epochs": 3},
}
Bytes = dict[tuple[str, str], Any]


def bytes_of(store: Path) -> Bytes:
    """Files, with checksums, of every artifact that is a function of its recipe."""
    return {
        (one.kind, one.key): [(file.name, file.bytes, file.sha256) for file in one.files]
        for one in ArtifactStore(store).artifacts()
        if one.kind not in MEASURED
    }


@pytest.fixture(scope="module")
def alone(tiny_run: RunResult, tiny_store: Path) -> Bytes:
    return bytes_of(tiny_store)


@pytest.fixture(scope="module")
def other_store(
    tiny_data: Path, tiny_run: RunResult, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What another configuration makes in a store of its own. Read only."""
    store = tmp_path_factory.mktemp("other") / "store"
    config = run_config(tiny_data, store, **OTHER)
    run_inline(parse_config({**config, "name": "other"}))
    return store


@pytest.fixture(scope="module")
def other_alone(other_store: Path) -> Bytes:
    return bytes_of(other_store)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Forks]]:
    """Processes to fork runs off that need no server."""
    with several(tmp_path_factory.mktemp("forks"), 3) as forks:
        yield forks


@contextmanager
def several(
    directory: Path, count: int, environment: Mapping[str, str] | None = None
) -> Iterator[list[Forks]]:
    """Some processes to fork runs off, that start at the same time."""
    with ExitStack() as open_ones:
        yield [
            open_ones.enter_context(Forks(directory / f"log-{number}", environment))
            for number in range(count)
        ]


def write_config(
    directory: Path, data: Path, store: Path, name: str, **tables: Mapping[str, Any]
) -> list[str]:
    """Write a configuration; returns the arguments of its run, which logs to ``<name>.jsonl``."""
    config = {**run_config(data, store, **tables), "name": name}
    toml = write_toml(directory / f"{name}.toml", config)
    log = directory / f"{name}.jsonl"
    return ["distill", str(toml), "--out", str(directory / f"out-{name}"), "--log", str(log)]


def run_together(forks: Sequence[Forks], arguments: Sequence[Sequence[str]]) -> None:
    """Start all at once and wait for all."""
    for one, its in zip(forks, arguments, strict=True):
        one.start(its)
    ended = [one.wait() for one in forks]
    assert ended == [0] * len(forks), "\n".join(one.said() for one in forks)


def collect(forks: Forks, store: Path) -> int:
    """Remove all that nothing keeps, however young, or left by runs that failed."""
    return forks.run(
        "store", "gc", "--store", str(store), "--delete", "--older-than", "0", "--unfinished", "0"
    )


def check_built_once(store: Path, *logs: Path) -> None:
    """Each of a store's artifacts was built once, by one of the runs."""
    there = {f"{one.kind}/{one.key}" for one in ArtifactStore(store).artifacts()}
    assert built(*logs) == {name: 1 for name in there if name.partition("/")[0] in STAGES}


@contextmanager
def collecting(forks: Forks, store: Path) -> Iterator[list[int]]:
    """Have garbage collected over and over while the block lasts; yields the statuses."""
    statuses: list[int] = []
    end = threading.Event()

    def over_and_over() -> None:
        while not end.wait(0.3):
            if (store / "store.json").exists():
                statuses.append(collect(forks, store))

    thread = threading.Thread(target=over_and_over)
    thread.start()
    try:
        yield statuses
    finally:
        end.set()
        thread.join()


@pytest.mark.timeout(300)
def test_two_configurations_at_once_beside_collections_make_what_they_make_alone(
    tiny_data: Path, tmp_path: Path, alone: Bytes, other_alone: Bytes, three: list[Forks]
):
    """They share dataset, corpus, teacher and logits, and race for them."""
    store = tmp_path / "store"
    one, two, third = three
    runs = [
        [*write_config(tmp_path, tiny_data, store, "tiny"), "--no-prefect"],
        [*write_config(tmp_path, tiny_data, store, "other", **OTHER), "--no-prefect"],
    ]
    logs = [tmp_path / "tiny.jsonl", tmp_path / "other.jsonl"]
    with collecting(third, store) as statuses:
        run_together([one, two], runs)
    assert len(statuses) >= 2
    assert set(statuses) == {0}, third.said()
    assert bytes_of(store) == {**alone, **other_alone}
    assert all(found.ok for found in ArtifactStore(store).verify())
    check_built_once(store, *logs)
    run_together([one, two], runs)
    for forks in (one, two):
        assert "Nothing had to be computed" in forks.said()
    check_built_once(store, *logs)


@pytest.fixture
def old_store(tiny_store: Path, other_store: Path, tmp_path: Path) -> Path:
    """What both configurations need before their students, an hour old and without a claim."""
    store = tmp_path / "store"
    for each in (tiny_store, other_store):
        shutil.copytree(each, store, ignore=shutil.ignore_patterns(*LATE, ".*"), dirs_exist_ok=True)
    with ArtifactStore(store).create(NOBODYS) as writer:
        writer.path("rows").write_text("what no run asks for")
    hour_ago = time.time() - 3600
    for path in store.rglob("*"):
        os.utime(path, (hour_ago, hour_ago))
    return store


@contextmanager
def stopped_at_their_students(
    forks: Sequence[Forks], arguments: Sequence[Sequence[str]], store: Path
) -> Iterator[None]:
    """Have runs stand still during the block, each in the middle of its student."""
    started = []
    try:
        for one, its in zip(forks, arguments, strict=True):
            started.append(one.start(its))
            stop_at_work(
                started[-1], lambda: [store / ".tmp"], ended=one.ended,
                wanted=lambda work: work.stage == "student",
            )  # fmt: skip
        yield
    finally:
        for pid in started:
            os.killpg(pid, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_collections_beside_runs_keep_what_these_alone_have_claimed(
    tiny_data: Path,
    tmp_path: Path,
    old_store: Path,
    alone: Bytes,
    other_alone: Bytes,
    three: list[Forks],
):
    """It was there long before the runs began, and belongs to no run that has ended."""
    *forks, third = three
    runs = [
        [*write_config(tmp_path, tiny_data, old_store, name, **tables), "--no-prefect"]
        for name, tables in (("tiny", {}), ("other", OTHER))
    ]
    place = local_place(old_store)
    before = place.manifests()
    with stopped_at_their_students(forks, runs, old_store):
        assert collect(third, old_store) == 0, third.said()
        kept = place.manifests()
    with collecting(third, old_store):
        ended = [one.wait() for one in forks]
    assert kept == {name: one for name, one in before.items() if NOBODYS.key not in name}
    assert ended == [0, 0], "\n".join(one.said() for one in forks)
    assert kept.items() <= place.manifests().items()
    assert {name.partition("/")[0] for name in built(*tmp_path.glob("*.jsonl"))} == set(LATE)
    assert bytes_of(old_store) == {**alone, **other_alone}
    assert all(found.ok for found in ArtifactStore(old_store).verify())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_configuration_twice_at_once_makes_everything_once(
    tiny_data: Path, tmp_path: Path, alone: Bytes
):
    for number in range(3):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        store = directory / "store"
        arguments = [*write_config(directory, tiny_data, store, "tiny"), "--no-prefect"]
        with several(directory, 2) as forks:
            run_together(forks, [arguments, arguments])
        check_built_once(store, directory / "tiny.jsonl")
        assert bytes_of(store) == alone
        assert len(ArtifactStore(store).artifacts("evaluation")) == 1
        assert len(ArtifactStore(store).artifacts("report")) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_runs_under_prefect_at_once_beside_collections(
    tiny_data: Path, tmp_path: Path, alone: Bytes, other_alone: Bytes
):
    store = tmp_path / "store"
    runs = [
        write_config(tmp_path, tiny_data, store, "tiny"),
        write_config(tmp_path, tiny_data, store, "other", **OTHER),
    ]
    with (
        prefect_server(tmp_path / "prefect") as variables,
        several(tmp_path, 3, variables) as (one, two, third),
    ):
        with collecting(third, store) as statuses:
            run_together([one, two], runs)
        assert set(statuses) == {0}, third.said()
    assert bytes_of(store) == {**alone, **other_alone}
    assert all(found.ok for found in ArtifactStore(store).verify())
    check_built_once(store, tmp_path / "tiny.jsonl", tmp_path / "other.jsonl")
