"""A change of a task, rendered once for all subscribers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import orjson

from service.events.position import Position


class Event:
    """A row of the event log with its position, and its renderings."""

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
    def previous_position(self) -> Position:
        """The position of a reader that has seen all events before this one."""
        return replace(self.position, after_id=self.id - 1)

    @cached_property
    def body(self) -> bytes:
        """The event as JSON."""
        return orjson.dumps(self.content, option=orjson.OPT_UTC_Z)

    @cached_property
    def websocket_frame(self) -> bytes:
        """The event as a WebSocket text frame from a server (RFC 6455, section 5.2)."""
        return text_frame(self.body)

    @cached_property
    def sse_message(self) -> bytes:
        """The event as a Server-Sent Event."""
        return b"id: %b\ndata: %b\n\n" % (self.cursor.encode(), self.body)


def text_frame(body: bytes) -> bytes:
    """Return a final, unmasked text frame that holds the body."""
    size = len(body)
    if size < 126:
        return b"\x81%c%b" % (size, body)
    if size < 1 << 16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), body)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), body)
