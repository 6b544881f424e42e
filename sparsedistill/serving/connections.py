"""Connections that cannot be held open for nothing.

uvicorn ends connections that idle between two requests; this adds what keeps a client from holding
one (and with it a file and memory) by sending the head of a request byte by byte or never, by a
head without end, trailers without end, or by not reading its answer. How slowly a body may come is
the application's matter (`limits`).

The parser is httptools where it is installed, which is twice as fast as h11.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    _Base = H11Protocol
else:
    _Base = object

MOST_HEAD_BYTES = 65536
_BODY = (
    b'{"code":"too_many_connections","message":"too many connections: try again in a second",'
    b'"fields":[],"request_id":""}'
)
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class Guarded(_Base):
    """What is added to a protocol of uvicorn.

    Attributes:
        max_connections: Of this process; one more is told to come again.
        head_seconds: Within which a request's head must have come, the first from the connection's
            beginning on. What is left of a body that nobody wants has the same time.
        write_seconds: For how long an answer may wait to be read.
    """

    max_connections = 512
    head_seconds = 10.0
    write_seconds = 30.0

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse a connection too many; begin to wait for a request."""
        super().connection_made(transport)
        own = transport.get_extra_info("socket")
        if own is not None and own.family != socket.AF_UNIX:
            # asyncio does not for a socket that workers share: answers would wait 40 ms for an ACK.
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.max_connections:
            transport.write(_BUSY)
            transport.close()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Stop waiting when a request's head is whole."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            _cancel(self._head_timer)
            self._head_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        _cancel(self._head_timer)
        _cancel(self._write_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read: give it some time."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads."""
        _cancel(self._write_timer)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also where it has not read the end of its last answer."""
        super().timeout_keep_alive_handler()
        _cancel(self._write_timer)
        self._write_timer = self.loop.call_later(self.write_seconds, self.transport.abort)

    def _await_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


class GuardedH11(Guarded, H11Protocol):
    """With h11, which bounds heads and trailers itself."""


try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:
    Protocol: type[Guarded] = GuardedH11
else:

    class GuardedHttpTools(Guarded, HttpToolsProtocol):  # type: ignore[misc]
        """With httptools, which does not."""

        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
            super().__init__(*args, **options)
            self._unparsed = 0
            self._parsed = False

        def data_received(self, data: bytes) -> None:
            """Count what comes without ending a head or being of a body.

            That is a head, trailers, what follows the size of a chunk, and the head of a next
            request while an answer is awaited: all that the parser keeps, or reads for nothing.
            """
            self._parsed = False
            super().data_received(data)
            self._unparsed = 0 if self._parsed else self._unparsed + len(data)
            if self._unparsed <= MOST_HEAD_BYTES or self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete:
                self.send_400_response("The head of the request is too large.")
            else:
                # An answer may be on its way: another must not be put into it.
                self.transport.abort()

        def on_headers_complete(self) -> None:
            """A head has ended."""
            self._parsed = True
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """A part of a body has come."""
            self._parsed = True
            super().on_body(body)

        def on_message_complete(self) -> None:
            """A request has ended."""
            self._parsed = True
            super().on_message_complete()

    Protocol = GuardedHttpTools
