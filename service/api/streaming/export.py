"""What goes out row by row: all tasks that filters leave, as NDJSON or CSV."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeAlias

from fastapi import Response
from loguru import logger
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.api import responses
from service.api.streaming.subscriptions import client_connection_of, first_of, left
from service.core.errors import ServiceError

Rows: TypeAlias = Sequence[Mapping[str, Any]]

STALL_SECONDS, PIECE_BYTES = 30.0, 64 * 1024  # so much a client has to take in that time
MAX_SECONDS = 3600.0  # as long as that, the database keeps every row that is changed meanwhile
WAIT_SECONDS = (
    3.0  # an export waits so long for another to end: of one client that makes one after the other, as a rule
)
COLUMNS = (
    *("id", "title", "description", "status", "city", "weather"),
    *("user_id", "created_at", "updated_at", "version"),
)
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r", "\n")
"""How a cell begins that a spreadsheet runs; in Japan's, full-width signs count as well."""


def _ndjson(rows: Rows) -> bytes:
    return b"".join(responses.json_line(row) for row in rows)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return "" if value is None else responses.json_line(value).decode().strip().strip('"')


def _csv(rows: Rows) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([_cell(row[name]) for name in COLUMNS] for row in rows)
    return text.getvalue().encode()


FORMS: dict[str, tuple[str, bytes, Callable[[Rows], bytes]]] = {
    "ndjson": ("application/x-ndjson", b"", _ndjson),
    "csv": ("text/csv; charset=utf-8; header=present", ",".join(COLUMNS).encode() + b"\r\n", _csv),
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Content-Disposition": {"schema": {"type": "string", "examples": ['attachment; filename="tasks.csv"']}}
        },
        "content": {media.partition(";")[0]: {"schema": {"type": "string"}} for media, _, _ in FORMS.values()},
    }
}


class Export(Response):
    """A file of rows: it has its end, or the connection is broken off.

    turn: is taken while it is sent.
    """

    def __init__(self, rows: AsyncGenerator[Rows], *, form: str, slot: AbstractAsyncContextManager[None]) -> None:
        self.media_type, self._head, self._render = FORMS[form]
        super().__init__(headers={"Content-Disposition": f'attachment; filename="tasks.{form}"'})
        del self.headers["content-length"]
        self._rows = rows
        self._turn = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as long as the client takes it."""
        async with self._turn:
            if peer := client_connection_of(scope):
                peer.stalled_after_seconds = STALL_SECONDS
            try:
                sending = self._send(send, head_alone=bool(scope.get(responses.HEAD)))
                async with asyncio.timeout(MAX_SECONDS):
                    await first_of(asyncio.create_task(sending), asyncio.create_task(left(receive)))
            except TimeoutError:
                logger.info("an export was cut off: its client takes too little, or has taken an hour")
                raise ClientDisconnect from None

    async def _send(self, send: Send, *, head_alone: bool) -> None:
        async with aclosing(self._rows) as batches:
            rows: Rows = await anext(batches, [])  # before anything is said, as there may be an error
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if head_alone:
                await send({"type": "http.response.body", "body": b""})
                return
            await self._part(send, self._head + self._render(rows))
            try:
                async for rows in batches:
                    await self._part(send, self._render(rows))
            except ServiceError as error:
                logger.bind(cause=repr(error.__cause__)).warning("an export broke off: {}", error.detail)
                raise ClientDisconnect from None
        await send({"type": "http.response.body", "body": b""})

    async def _part(self, send: Send, content: bytes) -> None:
        for start in range(0, len(content), PIECE_BYTES):
            piece = content[start : start + PIECE_BYTES]
            async with asyncio.timeout(STALL_SECONDS):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
