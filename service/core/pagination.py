"""Pages of lists and the opaque, signed cursors between them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any, TypeAlias

import orjson
from pydantic import Field

from service.core.errors import InvalidError
from service.core.validation import AS_DIGITS

SIGNATURE_BYTES = 16

PageLimit: TypeAlias = Annotated[int, Field(ge=1, le=100, description="The size of a page."), AS_DIGITS]
PageCursor: TypeAlias = Annotated[
    str | None, Field(max_length=2000, description="The `next_cursor` of the previous page.")
]
NextCursor: TypeAlias = Annotated[
    str | None, Field(description="The `cursor` of the next page; null on the last page.", examples=["WyIyMDI2LTAz…"])
]


class Cursors:
    """Cursors, signed with the first key and verified with any key.

    A cursor carries the last row's sort value and id. Its signature also covers what it is bound to (viewer, sort,
    filters), which it does not carry: a cursor of another list does not verify.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = tuple(hashlib.sha256(b"cursor:" + key.encode()).digest() for key in keys)

    def page(self, cursor: str | None, *, limit: int, bound_to: Any) -> PageRequest:
        """Return the request for the page after a cursor, or for the first page.

        Raises: InvalidError if the cursor is not one of this list.
        """
        after = (None, None) if cursor is None else self.read(cursor, bound_to=bound_to)
        return PageRequest(self, bound_to, limit, *after)

    def make(self, *, value: datetime | int | str, key: int, bound_to: Any) -> str:
        """Return the cursor after the row with this sort value and primary key."""
        text = value.isoformat() if isinstance(value, datetime) else str(value)
        return self.seal([text, key], bound_to=bound_to)

    def read(self, cursor: str, *, bound_to: Any) -> tuple[str, int]:
        """Return a cursor's sort value, as text, and primary key.

        Raises: InvalidError if the cursor is not one of this list.
        """
        opened = self.open(cursor, bound_to=bound_to)
        if opened is None:
            raise InvalidError(
                "Input should be a cursor of this list, with the same viewer, sort and filters", pointer="/query/cursor"
            )
        value, key = opened
        return value, key

    def seal(self, content: Any, *, bound_to: Any) -> str:
        """Return JSON content as a signed text that is safe in a URL."""
        payload = orjson.dumps(content)
        signed = _sign(self._keys[0], payload, bound_to) + payload
        return base64.urlsafe_b64encode(signed).decode().rstrip("=")

    def open(self, cursor: str, *, bound_to: Any) -> Any:
        """Return the content of a sealed text, or None if the signature does not match it and what it is bound to."""
        try:
            signed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        signature, payload = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
        if not any(hmac.compare_digest(signature, _sign(key, payload, bound_to)) for key in self._keys):
            return None
        return orjson.loads(payload)


@dataclass(frozen=True)
class PageRequest:
    """One page of a list: the row that it starts after, and its size."""

    cursors: Cursors
    bound_to: Any
    limit: int
    after_value: str | None
    after_id: int | None

    @property
    def row_limit(self) -> int:
        """The number of rows to read: one more than the page has, which shows whether another page follows."""
        return self.limit + 1

    def cut(
        self, rows: Sequence[Any], *, sort_value: Callable[[Any], Any] = itemgetter("id"), row_count: int | None = None
    ) -> dict[str, Any]:
        """Return the rows that were read as `{items, next_cursor}`.

        row_count: the number of rows that the statement found, if it returned fewer of them.
        """
        items = rows[: self.limit]
        last = items[-1] if items and (row_count or len(rows)) > len(items) else None
        cursor = last and self.cursors.make(value=sort_value(last), key=last["id"], bound_to=self.bound_to)
        return {"items": items, "next_cursor": cursor}


def _sign(key: bytes, payload: bytes, bound_to: Any) -> bytes:
    return hmac.digest(key, payload + b"\n" + orjson.dumps(bound_to), hashlib.sha256)[:SIGNATURE_BYTES]
