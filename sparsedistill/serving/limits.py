"""Reading a request's body, in bounded memory and bounded time.

Bytes are counted as they come, whatever the head of the request says: a body in chunks has no
length to look at. What all bodies together take is bounded too, those included whose requests wait
for a thread.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparsedistill.serving.problems import ServiceError, busy, too_large

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import Receive, Scope

    from sparsedistill.serving.settings import Settings

# How many times the limit is read and thrown away.
_DISCARDED = 8
_TYPE = "send the body as content-type application/json, in UTF-8 and not compressed"


class ClientGoneError(Exception):
    """The client closed the connection before its request was whole."""


@dataclass
class _Body:
    """What has come of a body, and whether there is more."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    more: bool = True


class BodyReader:
    """Reads bodies under the limits of one service."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_bytes
        self._most_together = settings.max_bytes * settings.max_concurrency
        self._seconds = settings.body_seconds
        self._together = 0

    @asynccontextmanager
    async def one(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """The body of a request, which counts as one in memory until the block ends.

        Raises:
            ServiceError: It is no JSON, too large, or does not come.
            ClientGoneError: It ended before its end.
        """
        body = _Body()
        try:
            yield await self._read(body, scope, receive)
        finally:
            self._forget(body)

    async def _read(self, body: _Body, scope: Scope, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                _check_head(scope, self._most)
                await self._collect(body, receive)
        except ServiceError:
            self._forget(body)
            if body.more:
                await self._discard(scope, receive)
            raise
        except TimeoutError:
            raise ServiceError(
                408,
                "body_too_slow",
                f"the body did not come within {self._seconds:g} seconds",
                headers={"Connection": "close"},
            ) from None
        whole = body.parts[0] if len(body.parts) == 1 else b"".join(body.parts)
        body.parts.clear()
        return whole

    def _forget(self, body: _Body) -> None:
        body.parts.clear()
        self._together -= body.size
        body.size = 0

    async def _collect(self, body: _Body, receive: Receive) -> None:
        while body.more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part: bytes = message.get("body", b"")
            body.parts.append(part)
            body.size += len(part)
            body.more = message.get("more_body", False)
            self._together += len(part)
            self._check_size(body.size)

    async def _discard(self, scope: Scope, receive: Receive) -> None:
        """Let a body that is refused come, for a while.

        To answer before it has come may reset the connection of a client that reads only when it
        has sent all, and it would not see why.
        """
        if any(name == b"expect" for name, _ in scope["headers"]):
            return  # it waits to be told to send, and will not be
        left = _DISCARDED * self._most
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return

    def _check_size(self, size: int) -> None:
        if size > self._most:
            raise _body_too_large(self._most)
        if self._together > self._most_together:
            raise busy("too_much_at_once", "too many large requests at once: try again in a second")


class Slots:
    """Bounds how many requests are worked on or wait for a thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one while the block runs.

        Raises:
            ServiceError: None is left.
        """
        if self._taken >= self._most:
            raise busy(
                "too_many_requests", f"{self._most} requests are waiting: try again in a second"
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


def _check_head(scope: Scope, most: int) -> None:
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind, _, parameters = value.lower().partition(b";")
            charset = parameters.partition(b"charset=")[2].strip(b' "')
            if kind.strip() != b"application/json" or charset not in {b"", b"utf-8", b"utf8"}:
                raise ServiceError(415, "unsupported_media_type", _TYPE)
        elif name == b"content-encoding":
            if value.lower() != b"identity":
                raise ServiceError(415, "unsupported_media_type", _TYPE)
        elif name == b"content-length" and (not value.isdigit() or int(value[:20]) > most):
            raise _body_too_large(most)


def _body_too_large(most: int) -> ServiceError:
    return too_large(
        "body_too_large", f"the body is larger than {most:,} bytes: send fewer texts in a request"
    )
