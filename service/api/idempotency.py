"""The header `Idempotency-Key`: a request with a key runs once, and its response is saved for 24 hours."""

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
from service.api.request_checks import REPEATED
from service.api.state import AppState, State
from service.core.errors import ConflictError, InvalidError, ServiceError
from service.db.pool import Database, Executor
from service.db.queries import q

HEADER = "idempotency-key"
FIRST_REQUEST_RUNS = "The first request with this Idempotency-Key is still running."
REPLAYED = {"Idempotency-Replayed": "true"}
SAVED_HEADERS = ("location", "etag", "cache-control", "content-type")


@dataclass(frozen=True)
class IdempotentRequest:
    """A request that its client may safely repeat, if it has a key."""

    state: AppState
    user_id: int
    route: str
    key: str | None

    async def run(
        self, body: BaseModel, work: Callable[[Executor], Awaitable[Response]], *, on: Database, wait_seconds: float = 0
    ) -> Response:
        """Run the work on a database and save its response, or return the saved response of the first run.

        The work and the saved response are one transaction. If the work fails, the key is free again. Without a key,
        only run the work. `wait_seconds` is how long the work may wait before its first statement, in addition to the
        weather's time.

        Raises: ConflictError if the first run is not finished, InvalidError if it had another body.
        """
        if self.key is None:
            return await work(on)
        holder = token_bytes(16)
        # Time for the weather, a connection, the statement and the commit. If the work takes longer, a repetition may
        # claim the key and run the work. This request then fails when it saves its response.
        seconds = wait_seconds + self.state.weather.timeout_seconds + on.acquire_seconds + 2 * on.statement_seconds
        row_id: dict[str, Any] = {"user_id": self.user_id, "route": self.route, "key": self.key}
        claim = await q.idempotency.claim(
            self.state.db, **row_id, fingerprint=_fingerprint(body), holder=holder, seconds=seconds
        )
        if claim is None or claim["verdict"] == "running":
            raise ConflictError(FIRST_REQUEST_RUNS)
        if claim["verdict"] == "other":
            raise InvalidError(
                "Input should be a new key: this one came with another body", pointer=f"/header/{HEADER}"
            )
        if claim["verdict"] == "answered":
            logger.bind(actor_id=self.user_id, route=self.route).info("response replayed")
            return Response(
                claim["body"], claim["status"] or 0, orjson.loads(orjson.dumps(claim["headers"])) | REPLAYED
            )
        try:
            async with on.transaction() as transaction:
                response = await work(transaction)
                headers = {name: value for name, value in response.headers.items() if name in SAVED_HEADERS}
                saved = await q.idempotency.save_response(
                    transaction,
                    **row_id,
                    holder=holder,
                    status=response.status_code,
                    headers=orjson.Fragment(orjson.dumps(headers)),
                    body=bytes(response.body),
                )
                if not saved:
                    raise ConflictError("Another request with this Idempotency-Key has taken over.")
        except BaseException:
            with suppress(ServiceError):  # without the database, the claim expires by itself
                await q.idempotency.release(self.state.db, **row_id, holder=holder)
            raise
        return response


def _fingerprint(body: BaseModel) -> bytes:
    """Return the SHA-256 of the members that were sent, in the model's order and without spaces."""
    return hashlib.sha256(orjson.dumps(body.model_dump(exclude_unset=True))).digest()


def _idempotent_request(
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
                "Makes the request safe to repeat for 24 hours; a key belongs to one user and one route. The same key "
                "and body return the first response again. Another body returns 422. While the first request runs, a "
                "repetition returns 409."
            ),
            examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
        ),
    ] = None,
) -> IdempotentRequest:
    if idempotency_key is not None and len(request.headers.getlist(HEADER)) > 1:
        error = {"type": "value_error", "loc": ("header", HEADER), "msg": REPEATED}
        raise RequestValidationError([error])
    return IdempotentRequest(state, viewer.id, f"{request.method} {request.scope['path']}", idempotency_key)


Idempotent: TypeAlias = Annotated[IdempotentRequest, Depends(_idempotent_request)]
