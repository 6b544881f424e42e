"""What all tests share: no network, no telemetry, one thread; a tiny task and a tiny teacher."""

from __future__ import annotations

import os
import tempfile

# Before anything imports prefect or a Hugging Face library: both read these once.
os.environ.pop("PREFECT_API_URL", None)
os.environ.update(
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_HOME=tempfile.mkdtemp(prefix="prefect-home-"),
    PREFECT_LOGGING_LEVEL="WARNING",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_WAIT_POLICY="passive",
)

import gc
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.tiny_bert import write_tiny_bert
from helpers.tiny_task import LABELS, WORDS, run_config, write_data

if TYPE_CHECKING:
    from flows.delivery import RunResult


@pytest.fixture(scope="session", autouse=True)
def _tidy_prefect_home() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """Later tests, and what they start, would inherit what a test leaves in the environment."""
    before = _environment()
    yield
    after = _environment()
    changed = sorted({name for name, _ in before.items() ^ after.items()})
    for name in changed:
        os.environ.pop(name, None)
        os.environ.update({name: before[name]} if name in before else {})
    assert not changed, f"left in the environment: {', '.join(changed)}"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    # Only where a test, or what it tests, has imported torch already.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _imported_for_good() -> None:
    # A whole collection takes half a second with all that tests import, and Trainer asks for some.
    # What the module before left goes first, and with it the files it did not close: a warning.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _short_passes() -> None:
    # Nothing is said here about speed: half a second a pass would be a third of a tiny run's time.
    if "tasks.comparison" in sys.modules:
        sys.modules["tasks.comparison"].__dict__["LEAST_SECONDS"] = 0.01


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without a head for the task. Read only."""
    return write_tiny_bert(tmp_path_factory.mktemp("encoder") / "encoder", WORDS)


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with the labels of the tiny task, not trained. Read only."""
    return write_tiny_bert(tmp_path_factory.mktemp("classifier") / "c", WORDS, labels=LABELS)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Files of the tiny task and its encoder. Read only."""
    directory = write_data(tmp_path_factory.mktemp("tiny") / "data")
    shutil.copytree(tiny_encoder, directory / "encoder")
    return directory


@pytest.fixture
def own_data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the tiny task's files that a test may change; times of change are kept."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> RunResult:
    """A whole run over the tiny task, made once; its store is ``store`` beside it. Read only."""
    from flows.config import parse_config
    from flows.inline import run_inline

    store = tmp_path_factory.mktemp("tiny-run") / "store"
    return run_inline(parse_config(run_config(tiny_data, store)))


@pytest.fixture(scope="session")
def tiny_store(tiny_run: RunResult) -> Path:
    """The store of ``tiny_run``. Read only."""
    return tiny_run.artifacts["dataset"][0].directory().parents[1]


@pytest.fixture
def own_store(tiny_store: Path, tmp_path: Path) -> Path:
    """A copy of the store of ``tiny_run`` that a test may add to."""
    return Path(shutil.copytree(tiny_store, tmp_path / "store"))
