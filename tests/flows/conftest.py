"""A smaller whole run, for tests that make several, and the bytes of the model it packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.house import House
from helpers.tiny_task import run_config

from flows.config import parse_config
from flows.delivery import RunResult
from flows.inline import run_inline

SMALL: Mapping[str, Mapping[str, Any]] = {
    "student": {"baselines": [], "epochs": 2},
    "baseline": {"enabled": False},
    "teacher": {"epochs": 2},
    "evaluation": {"teacher_texts": 2},
}
Model = dict[str, bytes]


def packaged(result: RunResult) -> Model:
    """Files of the packaged model."""
    package = result.artifacts["package"][0]
    return {name: package.path(name).read_bytes() for name in package.names}


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A Prefect server for the tests of a file; the next file's find none that is set."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def small() -> Mapping[str, Mapping[str, Any]]:
    """Tables of a run without anything to compare with."""
    return SMALL


@pytest.fixture(scope="session")
def small_model(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """What an undisturbed run with ``small`` packages."""
    store = tmp_path_factory.mktemp("small") / "store"
    return packaged(run_inline(parse_config(run_config(tiny_data, store, **SMALL))))


@pytest.fixture
def house(own_data: Path, own_store: Path, tmp_path: Path) -> House:
    """A finished run, nothing promoted yet."""
    return House(own_data, own_store, tmp_path / "out")


@pytest.fixture
def settled(house: House) -> House:
    """The finished run's model is the current one."""
    assert house.redistill().outcome == "promoted"
    return house
