"""The routes and their description; what they do is in `app`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002 - FastAPI reads annotations
from starlette.responses import HTMLResponse, Response

from sparsedistill import __version__
from sparsedistill.serving.docs_page import SECURITY_POLICY, docs_page
from sparsedistill.serving.problems import ServiceError, busy, internal_error
from sparsedistill.serving.schema import (
    ManyPredictions,
    ModelInfo,
    OnePrediction,
    PredictRequest,
    Problem,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sparsedistill.classifier import Classifier
    from sparsedistill.serving.app import Service

PREDICT = "/v1/predict"
ROUTES = frozenset(
    {PREDICT, "/v1/model", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"}
)

_PROBLEMS = {
    400: "The body is not JSON in UTF-8.",
    408: "The body came too slowly.",
    413: "The body or a text is too large, or there are too many texts.",
    415: "The body is not sent as JSON.",
    422: "The body is JSON, but no request.",
    500: "An error of the service.",
    503: "Too much at once, or not ready yet; `Retry-After` says when to try again.",
}
_UNKNOWN = {
    404: ("not_found", "there is nothing here; see /docs for what there is"),
    405: ("method_not_allowed", "this address is for other methods: see the header Allow"),
}


def make_api(
    service: Service, request_type: type[PredictRequest], lifespan: Callable[[FastAPI], Any]
) -> FastAPI:
    """The application's routes.

    Args:
        service: What answers.
        request_type: The body of a request for predictions.
        lifespan: What to do when the application starts and when it ends.
    """
    api = FastAPI(
        title=f"sparsedistill: {service.settings.name}",
        description="Labels for texts. One text gives one answer; many give one each, in order.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            ServiceError: _problem,
            HTTPException: _unknown,
            Exception: _broken,
        },
    )
    _add_predictions(api, service, request_type)
    _add_operations(api, service)
    page: list[str] = []

    @api.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        if not page:
            page.append(docs_page(api.openapi()))
        return HTMLResponse(page[0], headers={"Content-Security-Policy": SECURITY_POLICY})

    return api


def _add_predictions(api: FastAPI, service: Service, request_type: type[PredictRequest]) -> None:
    schema = request_type.model_json_schema()
    body = {"required": True, "content": {"application/json": {"schema": schema}}}

    @api.post(
        PREDICT,
        summary="Label one text or many",
        response_model=OnePrediction | ManyPredictions,
        responses={
            status: {"model": Problem, "description": said} for status, said in _PROBLEMS.items()
        },
        openapi_extra={"requestBody": body},
        tags=["predictions"],
    )
    async def predict(request: Request) -> Response:
        return await service.predict(request)

    @api.get("/v1/model", summary="What answers", tags=["predictions"])
    async def model() -> ModelInfo:
        return model_info(service.classifier, service.settings.name)


def _add_operations(api: FastAPI, service: Service) -> None:
    not_ready: dict[int | str, dict[str, Any]] = {
        503: {"model": Problem, "description": "Not yet, or no longer."}
    }

    @api.head("/healthz", include_in_schema=False)
    @api.get("/healthz", summary="Alive?", responses=not_ready, tags=["operations"])
    async def healthz() -> State:
        if service.failed:
            raise ServiceError(503, "failed", "the model does not work; the log says why")
        return State(status="alive")

    @api.head("/readyz", include_in_schema=False)
    @api.get("/readyz", summary="Ready for requests?", responses=not_ready, tags=["operations"])
    async def readyz() -> State:
        if not service.ready:
            raise busy("not_ready", "not ready: starting or stopping")
        return State(status="ready")

    @api.get(
        "/metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
        tags=["operations"],
    )
    async def metrics(request: Request) -> Response:
        content, content_type = service.metrics.scrape(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})


def model_info(classifier: Classifier, name: str) -> ModelInfo:
    """What is known of a model."""
    folded = classifier.folded
    return ModelInfo(
        name=name,
        labels=list(classifier.classes_),
        rows=len(folded.index),
        hidden=folded.hidden,
        dtype=folded.table_type,
        table_bytes=folded.table.nbytes,
        activation=folded.activation,
        temperature=folded.temperature,
        max_ngrams=folded.max_ngrams,
        ngrams=folded.spec.to_json(),
        thresholds=classifier.thresholds,
        training=classifier.training,
        version=__version__,
    )


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101 - what it is registered for
    return error.response(request.scope["request_id"])


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    code, message = _UNKNOWN.get(error.status_code, ("http_error", "this cannot be done"))
    said = ServiceError(error.status_code, code, message, headers=error.headers)
    return said.response(request.scope["request_id"])


async def _broken(request: Request, _: Exception) -> Response:
    return internal_error().response(request.scope["request_id"])
