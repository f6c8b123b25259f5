"""Routes for operators: the index, health, readiness and metrics."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse

from service.api import responses
from service.api.openapi import problems
from service.api.request_checks import no_query
from service.api.state import State
from service.core import metrics
from service.core.errors import UnavailableError
from service.db import readiness

router = APIRouter(tags=["operations"], dependencies=[no_query])
DOCS_PATH = "/docs"
EXAMPLE_METRICS = """\
# HELP task_manager_event_subscribers WebSockets and event streams that are open.
# TYPE task_manager_event_subscribers gauge
task_manager_event_subscribers 3.0
"""


class Index(BaseModel):
    """The service's name and version, and the paths of its documentation."""

    name: Annotated[str, Field(examples=["Task Manager"])]
    version: Annotated[str, Field(examples=["0.1.0"])]
    docs: Annotated[str, Field(examples=["/docs"])]
    openapi: Annotated[str, Field(examples=["/openapi.json"])]


class Health(BaseModel):
    """The state of the process: `ok` or `degraded`."""

    status: Literal["ok", "degraded"]


@router.get(
    "/",
    summary="Read the index",
    response_model=Index,
    responses={
        307: {"description": "To `/docs`, if `Accept` contains `text/html`, as a browser's does."},
        **problems(),
    },
)
async def get_index(request: Request) -> Response:
    """Return the service's name and version, and the paths of its documentation; redirect a browser to `/docs`."""
    if "text/html" in request.headers.get("accept", "").lower():
        return RedirectResponse(DOCS_PATH)
    app = request.app
    return responses.json(Index(name=app.title, version=app.version, docs=DOCS_PATH, openapi=app.openapi_url))


@router.get("/healthz", summary="Check that the process runs", response_model=Health, responses=problems())
async def check_health() -> Response:
    """Return 200 while the process runs, without asking the database or anything else."""
    return responses.json({"status": "ok"})


@router.get("/readyz", summary="Check that the process can serve", response_model=Health, responses=problems(503))
async def check_readiness(state: State) -> Response:
    """Return 200 if the process can serve requests, else 503.

    It can if the database responds, the schema is up to date and the listener for events is connected. If a configured
    Redis does not respond, the status is `degraded`: requests are served, and each process applies rate limits by
    itself.
    """
    await readiness.check(state.db)
    if not state.listener.is_polling:
        raise UnavailableError("The listener for events has no connection.")
    is_degraded = state.redis is not None and not await state.redis.ping()
    return responses.json({"status": "degraded" if is_degraded else "ok"})


@router.get(
    "/metrics",
    summary="Read the metrics",
    response_class=Response,
    responses={
        200: {"content": {metrics.CONTENT_TYPE: {"schema": {"type": "string"}, "example": EXAMPLE_METRICS}}},
        **problems(),
    },
)
async def get_metrics() -> Response:
    """Return the metrics of all workers in Prometheus's text format.

    They cover requests by route and status, SQL statements by file, pools, the listener, subscribers, rate limits,
    caches and the weather. The route needs no authentication: configure your proxy not to expose it.
    """
    return Response(await asyncio.to_thread(metrics.text), media_type=metrics.CONTENT_TYPE)
