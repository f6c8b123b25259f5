"""Opaque keyset cursors: where a page ended, signed, and good only for the list that gave them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime
from typing import Any

import orjson

from service.errors import InvalidError

SIGNATURE_BYTES = 16


class Cursors:
    """Signs cursors with the first key and verifies them with any.

    A cursor carries the last row's sort value and id. What it is bound to (viewer, sort, filters) is signed along
    and not carried: a cursor of another list does not verify.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = tuple(hashlib.sha256(b"cursor:" + key.encode()).digest() for key in keys)

    def make(self, *, value: datetime | int | str, key: int, bound_to: Any) -> str:
        """Give the cursor behind the row with this sort value and this primary key."""
        text = value.isoformat() if isinstance(value, datetime) else str(value)
        payload = orjson.dumps([text, key])
        signed = _sign(self._keys[0], payload, bound_to) + payload
        return base64.urlsafe_b64encode(signed).decode().rstrip("=")

    def read(self, cursor: str, *, bound_to: Any) -> tuple[str, int]:
        """Give the sort value as text and the primary key; InvalidError where it is no cursor of this list."""
        try:
            signed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            signed = b""
        signature, payload = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
        if not any(hmac.compare_digest(signature, _sign(key, payload, bound_to)) for key in self._keys):
            raise InvalidError(
                "takes a cursor of this very list: same viewer, sort and filters", pointer="/query/cursor"
            )
        value, key = orjson.loads(payload)
        return value, key


def _sign(key: bytes, payload: bytes, bound_to: Any) -> bytes:
    return hmac.digest(key, payload + b"\n" + orjson.dumps(bound_to), hashlib.sha256)[:SIGNATURE_BYTES]
