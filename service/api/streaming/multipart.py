"""The body of an upload: one file in multipart/form-data (RFC 7578), parsed as it arrives and never held as a whole."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from service.api.problems import FIELD_REQUIRED, UNKNOWN_NAME
from service.core.errors import InvalidError

FIELD = "file"
WRONG_UPLOAD_TYPE = "The Content-Type of the body should be multipart/form-data."
MAX_BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1
MAX_POINTER_CHARACTERS = 200
# An honest file has next to no lines that begin like the boundary. The parser compares each of them byte by byte, which
# takes 10 s of CPU for 25 MB of nothing else.
MAX_DELIMITERS = 100
# A client that sends more slowly than this loses its slot, which others wait for.
BASE_TIMEOUT_SECONDS, MIN_BYTES_PER_SECOND, MAX_SECONDS = 60.0, 8 * 1024, 6 * 3600.0
# How a browser escapes the characters that would end a quoted name (WHATWG HTML, section 4.10.22.8).
ESCAPES = {b"%22": b'"', b"%0D": b"\r", b"%0A": b"\n"}
PLAIN_ENCODINGS = {b"", b"binary", b"7bit", b"8bit"}

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns about what clients send


class FileBody:
    """The body of a request, read in order: first the file's name, then its content."""

    def __init__(self, request: Request) -> None:
        media_type, options = parse_options_header(request.headers.get("content-type"))
        if media_type != b"multipart/form-data":
            raise HTTPException(415, WRONG_UPLOAD_TYPE)
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= MAX_BOUNDARY_BYTES:
            raise HTTPException(400)
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_begin": lambda: self._headers.append((bytearray(), bytearray())),
                "on_header_field": lambda data, start, end: self._headers[-1][0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._headers[-1][1].extend(data[start:end]),
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": lambda data, start, end: self._content.append(data[start:end]),
                "on_end": self._on_end,
            },
        )
        self._delimiter, self._delimiter_count = b"\r\n--" + boundary, 0
        self._body = request.stream()
        self._headers: list[tuple[bytearray, bytearray]] = []
        self._name: str | None = None
        self._content: list[bytes] = []
        self._parts = 0
        self._is_complete = False
        self._received_bytes, self._waited_seconds = 0, 0.0

    async def name(self) -> str:
        """Read the body up to the file's name, and return the name.

        Raises HTTPException if the body is malformed, InvalidError if its first part is not the file.
        """
        while self._name is None:
            if not await self._parse_next():
                raise HTTPException(400)
        return self._name

    async def content(self) -> AsyncIterator[bytes]:
        """Read and yield the file's content.

        Raises HTTPException if the body ends too early, InvalidError if it contains another part.
        """
        has_more = True
        while has_more:
            for data in self._content:
                yield data
            self._content.clear()
            has_more = await self._parse_next()
        if not self._is_complete:
            raise HTTPException(400)

    async def _parse_next(self) -> bool:
        started_at = time.monotonic()
        data = await anext(self._body, None)
        self._waited_seconds += time.monotonic() - started_at
        if data is None:
            return False
        self._received_bytes += len(data)
        if self._waited_seconds > min(BASE_TIMEOUT_SECONDS + self._received_bytes / MIN_BYTES_PER_SECOND, MAX_SECONDS):
            raise HTTPException(408)
        self._delimiter_count += data.count(self._delimiter)
        if self._delimiter_count > MAX_DELIMITERS:
            raise HTTPException(400)
        try:
            self._parser.write(data)
        except FormParserError:
            raise HTTPException(400) from None
        return True

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > 1:
            raise InvalidError("Input should be one file and nothing else", pointer="")
        self._headers.clear()

    def _on_headers_finished(self) -> None:
        headers = {bytes(name).lower(): bytes(value) for name, value in self._headers}
        disposition, options = parse_options_header(headers.get(b"content-disposition", b"").decode("latin-1"))
        field = options.get(b"name", b"").decode(errors="replace")
        if disposition != b"form-data" or field != FIELD:
            raise InvalidError(UNKNOWN_NAME, pointer=f"/{field[:MAX_POINTER_CHARACTERS]}")
        if b"filename" not in options:
            raise InvalidError("Input should be a file with a file name", pointer=f"/{FIELD}")
        if headers.get(b"content-transfer-encoding", b"").strip().lower() not in PLAIN_ENCODINGS:
            raise InvalidError("Input should be a file without Content-Transfer-Encoding", pointer=f"/{FIELD}")
        self._name = _decode_filename(options[b"filename"])

    def _on_end(self) -> None:
        if self._name is None:
            raise InvalidError(FIELD_REQUIRED, pointer=f"/{FIELD}")
        self._is_complete = True


def _decode_filename(name: bytes) -> str:
    for escape, character in ESCAPES.items():
        name = name.replace(escape, character)
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise InvalidError("Input should have a file name in UTF-8", pointer=f"/{FIELD}") from None
