"""The body of an upload: one file in multipart/form-data (RFC 7578), read as it comes and never held as a whole."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from service.core.errors import InvalidError

FIELD = "file"
MAX_BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1
MAX_POINTER_CHARACTERS = 200
# Content has no lines that begin like the boundary. The parser steps through each of them byte by byte, which takes
# long where there are very many (10 s of a processor for 25 MB).
MAX_BOUNDARY_CHARACTERS = 100
# Who sends less than this, behind the first minute, holds a place that others want.
GRACE_PERIOD_SECONDS, MIN_BYTES_PER_SECOND, MAX_SECONDS = 60.0, 8 * 1024, 6 * 3600.0
# What a browser writes for what would end a quoted name (WHATWG HTML, section 4.10.22.8).
ESCAPES = {b"%22": b'"', b"%0D": b"\r", b"%0A": b"\n"}
PLAIN = {b"", b"binary", b"7bit", b"8bit"}

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what a client sends is no warning of ours


class FileBody:
    """Reads the request's body: first the file's name, then its content."""

    def __init__(self, request: Request) -> None:
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data":
            raise HTTPException(415, "The body takes Content-Type: multipart/form-data.")
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
            raise HTTPException(400)
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_begin": lambda: self._headers.append((bytearray(), bytearray())),
                "on_header_field": lambda data, start, end: self._headers[-1][0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._headers[-1][1].extend(data[start:end]),
                "on_headers_finished": self._finish_headers,
                "on_part_data": lambda data, start, end: self._read.append(data[start:end]),
                "on_end": self._finish,
            },
        )
        self._delimiter, self._delimiters = b"\r\n--" + boundary, 0
        self._body = request.stream()
        self._headers: list[tuple[bytearray, bytearray]] = []
        self._name: str | None = None
        self._read: list[bytes] = []
        self._parts = 0
        self._whole = False
        self._received, self._waited = 0, 0.0

    async def name(self) -> str:
        """Read as far as the name that the client gives the file; HTTPException, InvalidError."""
        while self._name is None:
            if not await self._more():
                raise HTTPException(400)
        return self._name

    async def content(self) -> AsyncIterator[bytes]:
        """Read the rest; HTTPException where the body ends before it is whole, InvalidError where more is in it."""
        more = True
        while more:
            for data in self._read:
                yield data
            self._read.clear()
            more = await self._more()
        if not self._whole:
            raise HTTPException(400)

    async def _more(self) -> bool:
        begun = time.monotonic()
        data = await anext(self._body, None)
        self._waited += time.monotonic() - begun
        if data is None:
            return False
        self._received += len(data)
        if self._waited > min(GRACE_PERIOD_SECONDS + self._received / MIN_BYTES_PER_SECOND, MAX_SECONDS):
            raise HTTPException(408)
        self._delimiters += data.count(self._delimiter)
        if self._delimiters > MAX_BOUNDARY_CHARACTERS:
            raise HTTPException(400)
        try:
            self._parser.write(data)
        except FormParserError:
            raise HTTPException(400) from None
        return True

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > 1:
            raise InvalidError("takes one file and nothing else", pointer="")
        self._headers.clear()

    def _finish_headers(self) -> None:
        headers = {bytes(name).lower(): bytes(value) for name, value in self._headers}
        kind, options = parse_options_header(headers.get(b"content-disposition", b"").decode("latin-1"))
        field = options.get(b"name", b"").decode(errors="replace")
        if kind != b"form-data" or field != FIELD:
            raise InvalidError("is not known here", pointer=f"/{field[:MAX_POINTER_CHARACTERS]}")
        if b"filename" not in options:
            raise InvalidError("takes a file, with a file name", pointer=f"/{FIELD}")
        if headers.get(b"content-transfer-encoding", b"").strip().lower() not in PLAIN:
            raise InvalidError("takes a file as it is, without Content-Transfer-Encoding", pointer=f"/{FIELD}")
        self._name = _decoded(options[b"filename"])

    def _finish(self) -> None:
        if self._name is None:
            raise InvalidError("is missing", pointer=f"/{FIELD}")
        self._whole = True


def _decoded(name: bytes) -> str:
    for escape, meant in ESCAPES.items():
        name = name.replace(escape, meant)
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InvalidError("takes a file name in UTF-8", pointer=f"/{FIELD}") from None
