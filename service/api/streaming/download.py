"""Downloads: a file or a range of it (RFC 9110, section 14), sent in chunks."""

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
from typing_extensions import override

from service.api import responses
from service.api.streaming.subscriptions import wait_for_disconnect, wait_for_first
from service.core.errors import ServiceError

OpenContent: TypeAlias = AbstractContextManager[AsyncGenerator[bytes]]
"""A file's content, which a block opens and closes."""

RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
# A client that reads more slowly than this loses its slot, which others wait for. It can continue with a Range.
BASE_TIMEOUT_SECONDS, MIN_BYTES_PER_SECOND = 60.0, 8 * 1024
# If a browser displays the file in spite of `attachment`, the file may run no script and appear in no frame.
CONTENT_SECURITY_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


@dataclass(frozen=True)
class RangeRequest:
    """The headers `Range` and `If-Range` of a request."""

    ranges: list[str]
    condition: str | None

    def resolve(self, *, size: int, tag: str) -> tuple[int, int] | None:
        """Return the start and stop of the requested range in a file of `size` bytes; None for the whole file.

        Anything but a single valid range is ignored, as RFC 9110 allows. Raises HTTPException if the file ends before
        the range begins.
        """
        parsed = RANGE.fullmatch(self.ranges[0]) if len(self.ranges) == 1 else None
        if parsed is None or self.condition not in (None, tag):  # strong comparison: no weak tag or date matches
            return None
        first, last = parsed[1], parsed[2]
        if not (first or last) or (first and last and int(first) > int(last)):
            return None
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= stop:
            if not (first or size or not int(last)):
                return None  # the last bytes of an empty file: no Content-Range can express an empty range
            raise HTTPException(416, headers={"Content-Range": f"bytes */{size}"})
        return start, stop


def _range_request(
    request: Request,
    ranges: Annotated[
        list[str] | None,
        WithJsonSchema({"type": "string", "examples": ["bytes=0-1023"]}),
        Header(alias="Range", description="One range of bytes. Any other value is ignored."),
    ] = None,
    if_range: Annotated[
        str | None,
        Header(description="An entity tag. If the file has another one, `Range` is ignored.", examples=['"5891b5b5"']),
    ] = None,
) -> RangeRequest:
    if request.scope.get(responses.HEAD):  # RFC 9110, section 14.2: a range applies to GET alone
        return RangeRequest([], None)
    return RangeRequest(ranges or [], if_range)


RequestedRange: TypeAlias = Annotated[RangeRequest, Depends(_range_request)]


def disposition(filename: str) -> str:
    """Return the Content-Disposition (RFC 6266) that names a file, in ASCII and in UTF-8."""
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


class Download(Response):
    """A response with an attachment's bytes. If it cannot send them all, it closes the connection."""

    def __init__(self, content: OpenContent, attachment: dict[str, Any], part: tuple[int, int] | None) -> None:
        start, stop = part or (0, attachment["size"])
        headers = {
            "Content-Type": attachment["content_type"],
            "Content-Length": str(stop - start),
            "Content-Disposition": disposition(attachment["filename"]),
            "Accept-Ranges": "bytes",
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            **responses.cache_headers(attachment["sha256"]),
        }
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{attachment['size']}"
        super().__init__(status_code=206 if part else 200, headers=headers)
        self._content = content

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get(responses.HEAD):
            await self._send_head(send)
            await send({"type": "http.response.body", "body": b""})
            return
        with self._content as chunks:
            sending = asyncio.create_task(self._send(chunks, send))
            await wait_for_first(sending, asyncio.create_task(wait_for_disconnect(receive)))

    async def _send_head(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _send(self, chunks: AsyncGenerator[bytes], send: Send) -> None:
        async with aclosing(chunks):
            chunk = await anext(chunks, b"")  # before the head, so that an error still becomes a problem response
            await self._send_head(send)
            sent_bytes, waited_seconds = 0, 0.0
            while chunk:
                started_at = time.monotonic()
                try:
                    timeout = BASE_TIMEOUT_SECONDS + sent_bytes / MIN_BYTES_PER_SECOND - waited_seconds
                    async with asyncio.timeout(timeout):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                except TimeoutError:
                    logger.bind(reason="client too slow").info("download aborted")
                    raise ClientDisconnect from None
                sent_bytes += len(chunk)
                waited_seconds += time.monotonic() - started_at
                chunk = await self._next(chunks)
        await send({"type": "http.response.body", "body": b""})

    async def _next(self, chunks: AsyncGenerator[bytes]) -> bytes:
        try:
            return await anext(chunks, b"")
        except ServiceError as error:
            logger.bind(reason=error.detail, cause=repr(error.__cause__)).warning("download failed")
            raise ClientDisconnect from None
