"""Signed opaque cursors, each valid only for the list that returned it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime
from typing import Any

import orjson

from service.core.errors import InvalidError

SIGNATURE_BYTES = 16


class Cursors:
    """The keys of cursors: the first signs, any of them verifies.

    A cursor holds the sort value and the id of a page's last row. The signature also covers what the cursor is bound to
    (viewer, sort, filters), so that a cursor of another list does not verify.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = tuple(hashlib.sha256(b"cursor:" + key.encode()).digest() for key in keys)

    def make(self, *, value: datetime | int | str, key: int, bound_to: Any) -> str:
        """Return the cursor after the row with this sort value and this primary key."""
        text = value.isoformat() if isinstance(value, datetime) else str(value)
        return self.seal([text, key], bound_to=bound_to)

    def read(self, cursor: str, *, bound_to: Any) -> tuple[str, int]:
        """Return the sort value as text, and the primary key.

        Raises InvalidError if the text is no cursor of this list.
        """
        content = self.open(cursor, bound_to=bound_to)
        if content is None:
            raise InvalidError(
                "takes a cursor of this very list: same viewer, sort and filters", pointer="/query/cursor"
            )
        value, key = content
        return value, key

    def seal(self, content: Any, *, bound_to: Any) -> str:
        """Return JSON content as a signed text that is safe in a URL."""
        payload = orjson.dumps(content)
        signed = _sign(self._keys[0], payload, bound_to) + payload
        return base64.urlsafe_b64encode(signed).decode().rstrip("=")

    def open(self, cursor: str, *, bound_to: Any) -> Any:
        """Return the content of a sealed text; None if no key signed it, or if it is bound to something else."""
        try:
            signed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        signature, payload = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
        if not any(hmac.compare_digest(signature, _sign(key, payload, bound_to)) for key in self._keys):
            return None
        return orjson.loads(payload)


def _sign(key: bytes, payload: bytes, bound_to: Any) -> bytes:
    return hmac.digest(key, payload + b"\n" + orjson.dumps(bound_to), hashlib.sha256)[:SIGNATURE_BYTES]
