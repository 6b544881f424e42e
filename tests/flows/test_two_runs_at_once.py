"""Two runs on one store at the same time, and garbage collections beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.chaos import Forks
from helpers.prefect_server import prefect_server
from helpers.tiny_task import run_config, write_toml

from flows.config import parse_config
from flows.delivery import RunResult
from flows.inline import run_inline
from storage import ArtifactStore

MEASURED = {"evaluation", "report"}
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
def other_alone(
    tiny_data: Path, tiny_run: RunResult, tmp_path_factory: pytest.TempPathFactory
) -> Bytes:
    """What another configuration makes in a store of its own."""
    store = tmp_path_factory.mktemp("other") / "store"
    config = run_config(tiny_data, store, **OTHER)
    run_inline(parse_config({**config, "name": "other"}))
    return bytes_of(store)


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
    """Write a configuration; returns the arguments of its run."""
    config = {**run_config(data, store, **tables), "name": name}
    toml = write_toml(directory / f"{name}.toml", config)
    return ["distill", str(toml), "--out", str(directory / f"out-{name}")]


def run_together(forks: Sequence[Forks], arguments: Sequence[Sequence[str]]) -> None:
    """Start all at once and wait for all."""
    for one, its in zip(forks, arguments, strict=True):
        one.start(its)
    ended = [one.wait() for one in forks]
    assert ended == [0] * len(forks), "\n".join(one.said() for one in forks)


@contextmanager
def collecting(forks: Forks, store: Path) -> Iterator[list[int]]:
    """Have garbage collected over and over while the block lasts; yields the statuses."""
    statuses: list[int] = []
    end = threading.Event()

    def collect() -> None:
        while not end.wait(0.3):
            if (store / "store.json").exists():
                statuses.append(
                    forks.run("store", "gc", "--store", str(store), "--delete", "--older-than", "0")
                )

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield statuses
    finally:
        end.set()
        thread.join()


@pytest.mark.timeout(300)
def test_two_configurations_at_once_beside_collections_make_what_they_make_alone(
    tiny_data: Path, tmp_path: Path, alone: Bytes, other_alone: Bytes
):
    """They share dataset, corpus, teacher and logits, and race for them."""
    store = tmp_path / "store"
    runs = [
        [*write_config(tmp_path, tiny_data, store, "tiny"), "--no-prefect"],
        [*write_config(tmp_path, tiny_data, store, "other", **OTHER), "--no-prefect"],
    ]
    with several(tmp_path, 3) as (one, two, third):
        with collecting(third, store) as statuses:
            run_together([one, two], runs)
        assert len(statuses) >= 2
        assert set(statuses) == {0}, third.said()
        assert bytes_of(store) == {**alone, **other_alone}
        assert all(found.ok for found in ArtifactStore(store).verify())
        run_together([one, two], runs)
        for forks in (one, two):
            assert "Nothing had to be computed" in forks.said()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_configuration_twice_at_once_makes_everything_once(
    tiny_data: Path, tmp_path: Path, alone: Bytes
):
    for number in range(3):
        store = tmp_path / f"store-{number}"
        arguments = [*write_config(tmp_path, tiny_data, store, "tiny"), "--no-prefect"]
        with several(tmp_path, 2) as forks:
            run_together(forks, [arguments, arguments])
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
