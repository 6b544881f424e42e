"""The application: what is answered where.

FastAPI routes, describes and documents. The one route that must be fast, `POST /v1/predict`, is
called past its layers; it is the same function, and errors are turned into answers in one place
for both, here.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from sparsedistill.serving import logs
from sparsedistill.serving.limits import BodyReader, ClientGoneError
from sparsedistill.serving.metrics import Metrics
from sparsedistill.serving.predictor import Predictor
from sparsedistill.serving.problems import ServiceError, busy, internal_error
from sparsedistill.serving.routes import PREDICT, ROUTES, make_api
from sparsedistill.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI
    from starlette.types import Message, Receive, Scope, Send

    from sparsedistill.classifier import Classifier

_access = logging.getLogger(logs.ACCESS)
_events = logging.getLogger(logs.EVENTS)

_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
# Nobody is there to get it; it is what other servers log then.
_CLIENT_GONE = 499


def create_app(classifier: Classifier, settings: Settings | None = None) -> Service:
    """An ASGI application that answers with a classifier.

    Args:
        classifier: May serve others too.
        settings: Its limits, and the name it gives the model.
    """
    return Service(classifier, settings or Settings())


class Service:
    """The application. `/readyz` says no until every kernel is compiled, and after `stop`.

    Attributes:
        classifier: What answers.
        settings: What is allowed.
        metrics: What has been counted.
        api: The routes.
    """

    def __init__(self, classifier: Classifier, settings: Settings) -> None:
        self.classifier = classifier
        self.settings = settings
        self.metrics = Metrics(classifier, settings.name)
        self._predictor = Predictor(classifier, settings, self.metrics)
        self._bodies = BodyReader(settings)
        self._warming: asyncio.Task[None] | None = None
        self._warm = self._failed = False
        self._stopping = False
        self.api: FastAPI = make_api(self, self._predictor.request_type, self._lifespan)

    @property
    def ready(self) -> bool:
        """Whether to send requests here."""
        return self._warm and not self._stopping

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    @property
    def failed(self) -> bool:
        """Whether it will never be ready."""
        return self._failed

    def start(self) -> None:
        """Begin to compile what is not; a server does so by the lifespan protocol."""
        if self._warming is None or self._warming.cancelled():
            self._warming = asyncio.get_running_loop().create_task(self._warm_up())

    async def warmed(self) -> bool:
        """Whether it works, when that is known."""
        self.start()
        assert self._warming is not None  # noqa: S101 - start sees to it
        await self._warming
        return self._warm

    def stop(self) -> None:
        """Be no longer ready; whoever still asks is still answered."""
        self._stopping = True

    async def predict(self, request: Request) -> Response:
        """Answer `POST /v1/predict`.

        Raises:
            ServiceError: There is no answer.
            ClientGoneError: There is nobody to answer.
        """
        if not self._warm:
            raise busy("not_ready", "the model is being loaded: try again in a second")
        async with self._bodies.one(request.scope, request.receive) as body:
            request.scope["bytes"] = len(body)
            answer = await self._predictor.answer(body)
        request.scope["texts"] = answer.texts
        return Response(answer.body, media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, as ASGI has it."""
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        self.start()
        start = time.perf_counter()
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        exchange = _Exchange(scope, send)
        self.metrics.begin_request()
        try:
            if path == PREDICT and scope["method"] == "POST":
                response = await self.predict(Request(scope, receive))
                await response(scope, receive, exchange.send)
            else:
                await self.api(scope, receive, exchange.send)
        except ServiceError as error:
            await exchange.fail(error, receive)
        except ClientGoneError:
            exchange.status = _CLIENT_GONE
        except asyncio.CancelledError:
            exchange.status = exchange.status or _CLIENT_GONE
            raise
        except Exception as error:
            fields = {"request_id": exchange.id, **logs.error_fields(error)}
            _events.error("a request failed", extra={"fields": fields})
            await exchange.fail(internal_error(), receive)
        finally:
            seconds = time.perf_counter() - start
            route = path if path in ROUTES else "other"
            self.metrics.end_request(route, exchange.status, seconds, scope.get("bytes", 0))
            exchange.log(route, seconds)

    async def _warm_up(self) -> None:
        start = time.perf_counter()
        try:
            await self._predictor.warm()
        except Exception as error:
            _events.error("the model does not work", extra={"fields": logs.error_fields(error)})
            self._failed = True
            return
        self._warm = True
        fields = {"model": self.settings.name, "seconds": round(time.perf_counter() - start, 3)}
        _events.info("ready", extra={"fields": fields})

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.start()
        try:
            yield
        finally:
            self.stop()
            self._predictor.close()


class _Exchange:
    """One request and its answer, as they are logged."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.status = 0
        self.sent = 0
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        self.id = given.decode() if _ID.fullmatch(given) else uuid4().hex
        scope["request_id"] = self.id

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["x-content-type-options"] = "nosniff"
        else:
            self.sent += len(message.get("body", b""))
        await self._send(message)

    async def fail(self, error: ServiceError, receive: Receive) -> None:
        """Answer with an error, if nothing has been answered yet."""
        if not self.status:
            await error.response(self.id)(self._scope, receive, self.send)

    def log(self, route: str, seconds: float) -> None:
        """Say what was asked and what was answered."""
        if not _access.isEnabledFor(logging.INFO):
            return
        scope = self._scope
        fields = {
            "request_id": self.id,
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"] if scope["method"] in _METHODS else "other",
            "route": route,
            "status": self.status,
            "ms": round(seconds * 1000, 3),
            "bytes_in": scope.get("bytes", 0),
            "bytes_out": self.sent,
            "texts": scope.get("texts", 0),
        }
        _access.info("request", extra={"fields": fields})


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
