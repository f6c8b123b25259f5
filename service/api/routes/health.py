"""Routes for those who run the service."""

from __future__ import annotations

import asyncio
import re

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.responses import RedirectResponse

from service.api import responses
from service.api.openapi import problems
from service.api.request_checks import no_query
from service.api.state import State
from service.core import metrics
from service.core.errors import UnavailableError
from service.db import readiness

router = APIRouter(tags=["operations"], dependencies=[no_query])


DOCS = "/docs"
WEIGHT = re.compile(r"q=([01](?:\.\d{0,3})?)", re.ASCII)


class Index(BaseModel):
    """The service's name and release, and where it is documented."""

    name: str
    version: str
    docs: str
    openapi: str


class Health(BaseModel):
    """That it is well."""

    status: str


@router.get(
    "/",
    response_model=Index,
    responses={307: {"description": "To `/docs`, for a browser: `Accept` prefers `text/html`."}, **problems()},
)
async def index(request: Request) -> Response:
    """Return the service's name, its release, and the paths of its documentation; redirect a browser to `/docs`."""
    if _prefers_html(",".join(request.headers.getlist("accept"))):
        return RedirectResponse(DOCS)
    app = request.app
    return responses.json(Index(name=app.title, version=app.version, docs=DOCS, openapi=app.openapi_url))


def _prefers_html(accept: str) -> bool:
    """Compare the weights of HTML and JSON (RFC 9110, section 12.5.1), each as it is named; `*/*` names neither."""
    weights: dict[str, float] = {}
    for one in accept.lower().split(","):
        name, *parameters = (part.strip() for part in one.split(";"))
        matches = [WEIGHT.fullmatch(part) for part in parameters if part.startswith("q=")]
        weights[name] = min((float(match[1]) if match else 0 for match in matches), default=1)
    return weights.get("text/html", 0) > weights.get("application/json", 0)


@router.get("/healthz", response_model=Health, responses=problems())
async def healthz() -> Response:
    """Say that the process is up; asks nothing of anyone."""
    return responses.json({"status": "ok"})


@router.get("/readyz", response_model=Health, responses=problems(503))
async def readyz(state: State) -> Response:
    """Say whether requests can be served: the database answers, its schema is at head, and events
    are listened for.

    Without its Redis it is `degraded`: requests are served, and rate limits hold for each process by itself."""
    await readiness.check(state.db)
    if not state.listener.alive:
        raise UnavailableError("The listener for events has no connection.")
    away = state.redis is not None and not await state.redis.ping()
    return responses.json({"status": "degraded" if away else "ok"})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {metrics.CONTENT_TYPE: {"schema": {"type": "string"}}}}, **problems()},
)
async def prometheus() -> Response:
    """Give figures for Prometheus, in its text format: requests by route and status, statements by the SQL's file,
    pools, the listener, subscribers, caches, limits, weather.

    With several workers they are those of all. Anyone who reaches the service may ask: keep it from the outside."""
    return Response(await asyncio.to_thread(metrics.text), media_type=metrics.CONTENT_TYPE)
