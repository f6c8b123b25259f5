"""One change of a task, rendered once for every subscriber."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import orjson

from service.events.position import Position


class Event:
    """One change of a task, rendered once for all who hear of it."""

    def __init__(self, row: Mapping[str, Any], *, position: Position, cursor: str) -> None:
        self.row = row
        self.id: int = row["id"]
        self.xid = int(row["xid"])
        self.owners: set[int] = {row["user_id"], row["previous_user_id"] or row["user_id"]}
        self.statuses = {row["status_now"], row["status_before"]}
        self.position = position
        self.cursor = cursor
        names = ("id", "type", "task_id", "user_id", "actor_id", "at", "changes", "task")
        self.content = {name: row[name] for name in names if name != "changes" or row[name] is not None}
        self.content["cursor"] = cursor

    @cached_property
    def before(self) -> Position:
        """The position of who has seen what came before it, and not itself."""
        return replace(self.position, after_id=self.id - 1)

    @cached_property
    def body(self) -> bytes:
        """The event's JSON."""
        return orjson.dumps(self.content, option=orjson.OPT_UTC_Z)

    @cached_property
    def frame(self) -> bytes:
        """The same as a WebSocket's text frame from a server (RFC 6455, section 5.2), ready for the wire."""
        return framed(self.body)

    @cached_property
    def chunk(self) -> bytes:
        """The same as a Server-Sent Event."""
        return b"id: %b\ndata: %b\n\n" % (self.cursor.encode(), self.body)


def framed(body: bytes) -> bytes:
    """Give a whole, unmasked text frame."""
    size = len(body)
    if size < 126:
        return b"\x81%c%b" % (size, body)
    if size < 1 << 16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), body)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), body)
