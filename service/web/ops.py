"""Routes for those who run the service."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from pydantic import BaseModel

from service import metrics, readiness
from service.errors import UnavailableError
from service.web import replies
from service.web.deps import In, no_query
from service.web.documents import problems

router = APIRouter(tags=["operations"], dependencies=[no_query])


class Health(BaseModel):
    """That it is well."""

    status: str


@router.get("/healthz", response_model=Health, responses=problems())
async def healthz() -> Response:
    """Say that the process is up; asks nothing of anyone."""
    return replies.json({"status": "ok"})


@router.get("/readyz", response_model=Health, responses=problems(503))
async def readyz(rooms: In) -> Response:
    """Say whether requests can be served: the database answers, its schema is at head, and events
    are listened for.

    Without its Redis it is `degraded`: requests are served, and rate limits hold for each process by itself."""
    await readiness.check(rooms.db)
    if not rooms.listener.alive:
        raise UnavailableError("The listener for events has no connection.")
    away = rooms.redis is not None and not await rooms.redis.answers()
    return replies.json({"status": "degraded" if away else "ok"})


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
