"""Exports: all tasks that match the filters as one file, NDJSON or CSV, sent row by row."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeAlias

from fastapi import Response
from loguru import logger
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from service.api import responses
from service.api.streaming.subscriptions import client_connection_of, wait_for_disconnect, wait_for_first
from service.core.errors import ServiceError

Rows: TypeAlias = Sequence[Mapping[str, Any]]

STALL_SECONDS, CHUNK_BYTES = 30.0, 64 * 1024  # a client has STALL_SECONDS to read each chunk
MAX_SECONDS = 3600.0  # meanwhile the database keeps every row version that the export may read
SLOT_TIMEOUT_SECONDS = 3.0  # enough for a client whose previous export is about to end
COLUMNS = (
    *("id", "title", "description", "status", "city", "weather"),
    *("user_id", "created_at", "updated_at", "version"),
)
FORMULA = re.compile("(^|;)(?=[=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n])")
"""Where a spreadsheet may begin a formula: Japanese ones accept full-width signs, some countries separate by `;`."""
BYTE_ORDER_MARK = "\ufeff".encode()


def _ndjson(rows: Rows) -> bytes:
    return b"".join(responses.json_line(row) for row in rows)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return FORMULA.sub(r"\1'", value)
    return "" if value is None else responses.json_line(value).decode().strip().strip('"')


def _csv(rows: Rows) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([_cell(row[name]) for name in COLUMNS] for row in rows)
    return text.getvalue().encode()


FORMATS: dict[str, tuple[str, bytes, Callable[[Rows], bytes]]] = {
    "ndjson": ("application/x-ndjson", b"", _ndjson),
    "csv": ("text/csv; charset=utf-8; header=present", ",".join(COLUMNS).encode() + b"\r\n", _csv),
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Content-Disposition": {"schema": {"type": "string", "examples": ['attachment; filename="tasks.csv"']}}
        },
        "content": {
            "application/x-ndjson": {
                "schema": {"type": "string"},
                "example": '{"id": 1, "title": "Prepare report", …}\n',
            },
            "text/csv": {"schema": {"type": "string"}, "example": "id,title,description,…\r\n1,Prepare report,,…\r\n"},
        },
    }
}


class Export(Response):
    """A file of rows. If it cannot send them all, it closes the connection.

    has_bom: whether the file begins with a byte order mark.
    slot: held while the file is sent.
    """

    def __init__(
        self, rows: AsyncGenerator[Rows], *, format_: str, has_bom: bool, slot: AbstractAsyncContextManager[None]
    ) -> None:
        self.media_type, header, self._render = FORMATS[format_]
        self._header = BYTE_ORDER_MARK + header if has_bom else header
        super().__init__(headers={"Content-Disposition": f'attachment; filename="tasks.{format_}"'})
        del self.headers["content-length"]
        self._rows = rows
        self._slot = slot

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._slot:
            if connection := client_connection_of(scope):
                connection.stalled_after_seconds = STALL_SECONDS
            try:
                sending = self._send(send, is_head=bool(scope.get(responses.HEAD)))
                async with asyncio.timeout(MAX_SECONDS):
                    tasks = asyncio.create_task(sending), asyncio.create_task(wait_for_disconnect(receive))
                    await wait_for_first(*tasks)
            except TimeoutError:
                logger.bind(reason="client too slow").info("export aborted")
                raise ClientDisconnect from None

    async def _send(self, send: Send, *, is_head: bool) -> None:
        async with aclosing(self._rows) as batches:
            rows: Rows = await anext(batches, [])  # before the head, so that an error still becomes a problem response
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if is_head:
                await send({"type": "http.response.body", "body": b""})
                return
            await self._send_chunks(send, self._header + self._render(rows))
            try:
                async for rows in batches:
                    await self._send_chunks(send, self._render(rows))
            except ServiceError as error:
                logger.bind(reason=error.detail, cause=repr(error.__cause__)).warning("export failed")
                raise ClientDisconnect from None
        await send({"type": "http.response.body", "body": b""})

    async def _send_chunks(self, send: Send, content: bytes) -> None:
        for start in range(0, len(content), CHUNK_BYTES):
            chunk = content[start : start + CHUNK_BYTES]
            async with asyncio.timeout(STALL_SECONDS):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
