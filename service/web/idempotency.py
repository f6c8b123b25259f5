"""The header Idempotency-Key, of routes that make something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from fastapi import Depends, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from service.db.pool import Database, Executor
from service.idempotency import Answer, Attempt
from service.web.deps import In, Known, Rooms

NAME = "idempotency-key"
KEPT = ("location", "etag", "cache-control", "content-type")
REPLAYED = "Idempotency-Replayed"


@dataclass(frozen=True)
class Repeatable:
    """A request that a client may send again without knowing whether it came through."""

    rooms: Rooms
    user_id: int
    route: str
    key: str | None

    async def once(
        self, body: BaseModel, work: Callable[[Executor], Awaitable[Response]], *, on: Database, patience: float = 0
    ) -> Response:
        """Do the work on that database, or give the answer of the first time; without a key simply do it.

        patience: how many seconds the work may wait, beside the weather's, before its first statement.
        """
        if self.key is None:
            return await work(on)

        async def answered(db: Executor) -> Answer:
            response = await work(db)
            headers = {name: value for name, value in response.headers.items() if name in KEPT}
            return Answer(response.status_code, headers, bytes(response.body))

        attempt = Attempt(self.user_id, self.route, self.key, body)
        answer = await attempt.once(self.rooms.db, answered, on=on, seconds=self.rooms.weather.budget + patience)
        replayed = {REPLAYED: "true"} if answer.replayed else {}
        return Response(answer.body, answer.status, answer.headers | replayed)


async def _repeatable(
    request: Request,
    rooms: In,
    viewer: Known,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description=(
                "Makes the request safe to send again: the same key and body give the first answer again, for 24 "
                "hours; another body: 422; while the first runs: 409. A key is of one user and one route."
            ),
            examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
        ),
    ] = None,
) -> Repeatable:
    if len(request.headers.getlist(NAME)) > 1:
        raise RequestValidationError([{"type": "value_error", "loc": ("header", NAME), "msg": "is there twice"}])
    return Repeatable(rooms, viewer.id, f"{request.method} {request.url.path}", idempotency_key)


Once: TypeAlias = Annotated[Repeatable, Depends(_repeatable)]
