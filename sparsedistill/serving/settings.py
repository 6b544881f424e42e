"""What a service allows, and what a server around it does. All limits have a default."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sparsedistill.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of the application.

    Attributes:
        name: Of the model, in answers, metrics and documentation.
        max_bytes: Of a request's body.
        max_texts: In a request.
        max_text_bytes: Of a text, in UTF-8.
        max_explained: Texts in a request that wants explanations, each of which costs as much as
            some hundred answers.
        threads: Requests worked on at once, beside the small ones that are answered as they come.
        max_concurrency: Requests worked on or waiting for a thread; one more is turned away.
        body_seconds: Within which a body must have come.
    """

    name: str = "model"
    max_bytes: int = 4_000_000
    max_texts: int = 1024
    max_text_bytes: int = 1_000_000
    max_explained: int = 16
    threads: int = 1
    max_concurrency: int = 64
    body_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("the name of the model must not be empty")
        _check_positive(self, "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Of the server that runs the application.

    Attributes:
        host: Address to listen on.
        port: To listen on; 0 for any that is free.
        workers: Processes, each with the application's threads; the model's table is shared.
        max_connections: Of a worker, at once.
        head_seconds: Within which a request's head must have come.
        write_seconds: For how long a client may leave an answer unread.
        keep_alive_seconds: For how long a connection may idle between two requests.
        drain_seconds: For how long, once told to stop, new connections are still taken while
            `/readyz` says no, so that a load balancer can look elsewhere.
        grace_seconds: For how long, then, requests in flight may go on.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    max_connections: int = 512
    head_seconds: float = 10.0
    write_seconds: float = 30.0
    keep_alive_seconds: int = 15
    drain_seconds: float = 0.0
    grace_seconds: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be from 0 to 65535, not {self.port}")
        if self.drain_seconds < 0:
            raise ConfigError(f"drain_seconds must be 0 or more, not {self.drain_seconds}")
        _check_positive(self, "host", "port", "drain_seconds")


def to_json(model: str, settings: Settings, server: ServerSettings) -> str:
    """All that a worker must know, for its environment."""
    return json.dumps({"model": model, "settings": asdict(settings), "server": asdict(server)})


def from_json(text: str) -> tuple[str, Settings, ServerSettings]:
    """Read what `to_json` wrote."""
    given = json.loads(text)
    return given["model"], Settings(**given["settings"]), ServerSettings(**given["server"])


def _check_positive(settings: Settings | ServerSettings, *others: str) -> None:
    for name, value in asdict(settings).items():
        if name not in others and value <= 0:
            raise ConfigError(f"{name} must be above 0, not {value}")
