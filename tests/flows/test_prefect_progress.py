"""Words of progress to a server that does not answer: work goes on, and the last word is told."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from flows import prefect_progress
from flows.prefect_progress import ProgressArtifacts


class Server:
    """Answers or not, and remembers what it was told, and how often it would have been tried."""

    def __init__(self) -> None:
        self.down = False
        self.asked: list[tuple[str, Any, int]] = []

    def __call__(self, what: str, value: Any) -> str:
        self.asked.append((what, value, PREFECT_CLIENT_MAX_RETRIES.value()))
        if self.down:
            raise ConnectionError("refused")
        return "its number"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    there = Server()
    monkeypatch.setattr(prefect_progress, "_SECONDS_BETWEEN_UPDATES", 0.0)
    monkeypatch.setattr(
        prefect_progress, "create_progress_artifact",
        lambda percent, key, description: there("made", percent),
    )  # fmt: skip
    monkeypatch.setattr(
        prefect_progress, "update_progress_artifact",
        lambda number, progress: there("moved", progress),
    )  # fmt: skip
    monkeypatch.setattr(
        prefect_progress, "create_table_artifact",
        lambda key, table, description: there("looks", len(table)),
    )  # fmt: skip
    return there


def test_progress_is_told_as_it_comes(server: Server):
    told = ProgressArtifacts()
    told.expect("student", ["a"])
    told.advance("student", "a", 0.25)
    told.measured("student", "a", "kd", {"update": 1})
    told.finish("student", "a", cached=False)
    assert server.asked == [("made", 25.0, 0), ("looks", 1, 0), ("moved", 100.0, 1)]


def test_a_server_that_is_down_is_not_asked_all_the_time_and_hears_the_last_word(server: Server):
    told = ProgressArtifacts()
    told.expect("student", ["a"])
    told.advance("student", "a", 0.25)
    server.down = True
    with pytest.raises(ConnectionError):
        told.advance("student", "a", 0.5)
    for share in (0.6, 0.7):
        told.advance("student", "a", share)
        told.measured("student", "a", "kd", {"update": share})
    assert server.asked[1:] == [("moved", 50.0, 0)]
    server.down = False
    told.finish("student", "a", cached=False)
    assert server.asked[2:] == [("moved", 100.0, 1), ("looks", 2, 1)]


def test_a_stage_that_was_not_told_of_at_all_is_told_of_at_its_end(server: Server):
    told = ProgressArtifacts()
    told.expect("logits", ["a", "b"])
    server.down = True
    with pytest.raises(ConnectionError):
        told.advance("logits", "a", 0.5)
    server.down = False
    told.finish("logits", "a", cached=False)
    told.finish("logits", "b", cached=False)
    assert server.asked[1:] == [("made", 100.0, 1)]


def test_it_is_asked_again_after_a_minute(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefect_progress, "_SECONDS_OF_SILENCE", 0.0)
    told = ProgressArtifacts()
    told.expect("logits", ["a"])
    server.down = True
    with pytest.raises(ConnectionError):
        told.advance("logits", "a", 0.5)
    server.down = False
    told.advance("logits", "a", 0.75)
    assert server.asked[1:] == [("made", 75.0, 0)]
