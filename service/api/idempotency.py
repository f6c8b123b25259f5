"""The header `Idempotency-Key`: a request runs once, and its response is kept for a day."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_bytes
from typing import Annotated, Any, TypeAlias

import orjson
from fastapi import Depends, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from loguru import logger
from pydantic import BaseModel

from service.api.authentication import CurrentUser
from service.api.state import AppState, State
from service.core.errors import ConflictError, InvalidError, ServiceError
from service.db.pool import Database, Executor, Transaction
from service.db.queries import q

HEADER = "/header/idempotency-key"


@dataclass(frozen=True)
class Answer:
    """What was answered, to the byte."""

    status: int
    headers: dict[str, str]
    body: bytes
    replayed: bool = False


@dataclass(frozen=True)
class Attempt:
    """A request that is to be carried out once: whose, to where, under which key."""

    user_id: int
    route: str
    key: str
    body: BaseModel

    async def once(
        self, db: Database, work: Callable[[Transaction], Awaitable[Answer]], *, on: Database, seconds: float
    ) -> Answer:
        """Do the work in a transaction on `on` and keep its answer there, or give the answer of the first time.

        Raises ConflictError where the first attempt still runs, InvalidError where it had another body; what the work
        raises leaves the key free. seconds: how long the work may take before its first statement.
        """
        holder = token_bytes(16)
        named: dict[str, Any] = {"user_id": self.user_id, "route": self.route, "key": self.key}
        # For a connection, the statement and the commit. Where that is not enough, who takes the claim over carries the
        # request out, and who had it does not.
        seconds += on.acquire_seconds + 2 * on.statement_seconds
        claim = await q.idempotency.claim(
            db, **named, fingerprint=_fingerprint(self.body), holder=holder, seconds=seconds
        )
        verdict = claim["verdict"] if claim else "running"
        if claim and verdict == "answered":
            logger.bind(actor_id=self.user_id, route=self.route).info("answered as the first time")
            headers: dict[str, str] = orjson.loads(orjson.dumps(claim["headers"]))
            return Answer(claim["status"] or 0, headers, claim["body"] or b"", replayed=True)
        if verdict == "other":
            raise InvalidError("was sent before, with another body", pointer=HEADER)
        if verdict == "running":
            raise ConflictError("The first request with this Idempotency-Key is still running.")
        try:
            async with on.transaction() as transaction:
                answer = await work(transaction)
                kept = await q.idempotency.save_response(
                    transaction,
                    **named,
                    holder=holder,
                    status=answer.status,
                    headers=orjson.Fragment(orjson.dumps(answer.headers)),
                    body=answer.body,
                )
                if not kept:
                    raise ConflictError("Another request with this Idempotency-Key has taken over.")
        except BaseException:
            with suppress(ServiceError):  # where the database is away, the claim runs out
                await q.idempotency.release(db, **named, holder=holder)
            raise
        return answer


def _fingerprint(body: BaseModel) -> bytes:
    """Give SHA-256 over what was sent, as JSON in the model's order of fields: spaces and their order do not matter."""
    return hashlib.sha256(orjson.dumps(body.model_dump(exclude_unset=True))).digest()


NAME = "idempotency-key"
KEPT = ("location", "etag", "cache-control", "content-type")
REPLAYED = "Idempotency-Replayed"


@dataclass(frozen=True)
class Repeatable:
    """A request that a client may send again without knowing whether it came through."""

    state: AppState
    user_id: int
    route: str
    key: str | None

    async def once(
        self, body: BaseModel, work: Callable[[Executor], Awaitable[Response]], *, on: Database, wait_seconds: float = 0
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
        answer = await attempt.once(
            self.state.db, answered, on=on, seconds=self.state.weather.timeout_seconds + wait_seconds
        )
        replayed = {REPLAYED: "true"} if answer.replayed else {}
        return Response(answer.body, answer.status, answer.headers | replayed)


async def _repeatable(
    request: Request,
    state: State,
    viewer: CurrentUser,
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
    return Repeatable(state, viewer.id, f"{request.method} {request.url.path}", idempotency_key)


Once: TypeAlias = Annotated[Repeatable, Depends(_repeatable)]
