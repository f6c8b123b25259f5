"""A file that goes out, or a part of it (RFC 9110, section 14), in chunks."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias
from urllib.parse import quote

from fastapi import Depends, Header, Request, Response
from loguru import logger
from pydantic import WithJsonSchema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.api import responses
from service.api.streaming.subscriptions import first_of, left
from service.core.errors import ServiceError

Reading: TypeAlias = AbstractContextManager[AsyncGenerator[bytes]]

RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
# Who takes less than this, behind the first minute, holds a place that others want; it can go on with a Range.
GRACE_PERIOD_SECONDS, MIN_BYTES_PER_SECOND = 60.0, 8 * 1024
# Where it is shown after all, it may run nothing and be in no frame.
POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


@dataclass(frozen=True)
class ByteRange:
    """The part that a request asks for."""

    ranges: list[str]
    condition: str | None

    def of(self, *, size: int, tag: str) -> tuple[int, int] | None:
        """Give the part's first byte and the one behind its last, of a file of this size; None for the whole file.

        HTTPException where the file does not reach that far. What is no single range is ignored, which RFC 9110 allows.
        """
        parsed = RANGE.fullmatch(self.ranges[0]) if len(self.ranges) == 1 else None
        if parsed is None or self.condition not in (None, tag):  # compared strongly: a weak tag or a date never matches
            return None
        first, last = parsed[1], parsed[2]
        if not (first or last) or (first and last and int(first) > int(last)):
            return None
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= stop:
            if not (first or size or not int(last)):
                return None  # the last bytes of nothing are nothing, which no Content-Range can say
            raise HTTPException(416, headers={"Content-Range": f"bytes */{size}"})
        return start, stop


async def _asked(
    request: Request,
    ranges: Annotated[
        list[str] | None,
        WithJsonSchema({"type": "string", "examples": ["bytes=0-1023"]}),
        Header(alias="Range", description="One range of bytes; what is none is ignored."),
    ] = None,
    if_range: Annotated[
        str | None, Header(description="An entity tag: with another one the whole is sent.", examples=['"5891b5b5"'])
    ] = None,
) -> ByteRange:
    if request.scope.get(responses.HEAD):  # RFC 9110, section 14.2: a range is of a GET alone
        return ByteRange([], None)
    return ByteRange(ranges or [], if_range)


Asked: TypeAlias = Annotated[ByteRange, Depends(_asked)]


def disposition(filename: str) -> str:
    """Give the header that names a file (RFC 6266), for those who know it and those who do not."""
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


class Download(Response):
    """An attachment's bytes: all that were promised, or the connection is broken off."""

    def __init__(self, reading: Reading, attachment: dict[str, Any], part: tuple[int, int] | None) -> None:
        start, stop = part or (0, attachment["size"])
        headers = {
            "Content-Type": attachment["content_type"],
            "Content-Length": str(stop - start),
            "Content-Disposition": disposition(attachment["filename"]),
            "Accept-Ranges": "bytes",
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            **responses.cache_headers(attachment["sha256"]),
        }
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{attachment['size']}"
        super().__init__(status_code=206 if part else 200, headers=headers)
        self._reading = reading

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as long as the client takes it."""
        if scope.get(responses.HEAD):
            await self._begin(send)
            await send({"type": "http.response.body", "body": b""})
            return
        with self._reading as pieces:
            await first_of(asyncio.create_task(self._send(pieces, send)), asyncio.create_task(left(receive)))

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _send(self, pieces: AsyncGenerator[bytes], send: Send) -> None:
        async with aclosing(pieces):
            piece = await anext(pieces, b"")  # before anything is said, as there may be an error
            await self._begin(send)
            sent, waited = 0, 0.0
            while piece:
                begun = time.monotonic()
                try:
                    async with asyncio.timeout(GRACE_PERIOD_SECONDS + sent / MIN_BYTES_PER_SECOND - waited):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                except TimeoutError:
                    logger.info("a download was cut off: its client takes too little")
                    raise ClientDisconnect from None
                sent, waited = sent + len(piece), waited + time.monotonic() - begun
                piece = await self._next(pieces)
        await send({"type": "http.response.body", "body": b""})

    async def _next(self, pieces: AsyncGenerator[bytes]) -> bytes:
        try:
            return await anext(pieces, b"")
        except ServiceError as error:
            logger.bind(cause=repr(error.__cause__)).warning("a download broke off: {}", error.detail)
            raise ClientDisconnect from None
