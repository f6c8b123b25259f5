"""Routes for those who run the service."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from service import readiness
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
