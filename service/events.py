"""Events of tasks: what a reader has seen, what is new to it, and how both are written down.

A look at the table sees a snapshot: which transactions had ended, and the greatest id among what they wrote. New to who
had that look is what has a greater id, or belongs to a transaction that the snapshot did not see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import orjson

from service.core.pagination import Cursors
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q

CHANNEL = "task_events"
PAGE_ROWS = 1000
EVERYONE = Viewer(id=0, is_admin=True)
BOUND_TO = "events"


@dataclass(frozen=True)
class Snapshot:
    """What a look saw: PostgreSQL's `xmin:xmax:xip,…`, and the event with the greatest id.

    newest_at: its time in microseconds. A database that was put back to an earlier state gives ids out again.
    """

    xmin: int
    xmax: int
    open: frozenset[int]
    newest_id: int
    newest_at: int = 0

    @classmethod
    @lru_cache(maxsize=64)
    def parse(cls, text: str, newest_id: int, newest_at: int = 0) -> Snapshot:
        """Read PostgreSQL's own form. Those who read the same share one, of which each takes 1.5 KB."""
        xmin, xmax, still_open = text.split(":")
        running = frozenset(int(xid) for xid in still_open.split(",") if xid)
        return cls(int(xmin), int(xmax), running, newest_id, newest_at)

    @cached_property
    def text(self) -> str:
        """PostgreSQL's own form."""
        return f"{self.xmin}:{self.xmax}:{','.join(str(xid) for xid in sorted(self.open))}"

    def missed(self, event_id: int, xid: int) -> bool:
        """Return whether an event is new to a reader that has seen this."""
        return event_id > self.newest_id or (xid >= self.xmin and (xid >= self.xmax or xid in self.open))

    def is_older_than(self, other: Snapshot) -> bool:
        """Whether the other was taken later and saw more."""
        ours = (self.newest_id, self.xmax, -len(self.open))
        return ours < (other.newest_id, other.xmax, -len(other.open))

    def packed(self) -> list[Any]:
        """Give it in little JSON."""
        still_open = [xid - self.xmin for xid in sorted(self.open)]
        return [self.xmin, self.xmax - self.xmin, still_open, self.newest_id, self.newest_at]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Snapshot:
        """Read what `packed` gave."""
        xmin, length, still_open, *newest = packed
        return cls(xmin, xmin + length, frozenset(xmin + xid for xid in still_open), *newest)


@dataclass(frozen=True)
class Position:
    """How far a reader has come: it has seen a look, and of what the next look (`batch`) found new, all up to an id."""

    epoch: str
    seen: Snapshot
    batch: Snapshot | None = None
    after_id: int = 0


NOWHERE = Position("", Snapshot(xmin=3, xmax=3, open=frozenset(), newest_id=0))
"""The position of who has none: it belongs to no history."""


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


@dataclass(frozen=True)
class Page:
    """What was new, where to go on, and whether there is more already.

    `reset`: the position was of no use any more; `position` is the present one and what lies between is unknown.
    """

    events: Sequence[Event]
    position: Position
    more: bool = False
    reset: bool = False


class Feed:
    """Reads events from the table, and positions from cursors."""

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors

    async def here(self, db: Executor) -> Position:
        """Give the position of who has seen everything."""
        row = await q.events.position(db)
        return Position(_short(row["epoch"]), Snapshot.parse(row["snapshot_now"], row["newest_id"], row["newest_at"]))

    async def page(
        self, db: Executor, position: Position, *, viewer: Viewer = EVERYONE, rows: int = PAGE_ROWS, size: int
    ) -> Page:
        """Give the next events that the viewer may see: at most so many rows, and about so many bytes."""
        batch = position.batch
        found = await q.events.page(
            db,
            viewer_id=viewer.id,
            viewer_is_admin=viewer.is_admin,
            seen_snapshot=position.seen.text,
            seen_id=position.seen.newest_id,
            batch_snapshot=batch.text if batch else None,
            batch_id=batch.newest_id if batch else None,
            after_id=position.after_id,
            row_limit=rows,
            byte_limit=size,
            newest_at=(batch or position.seen).newest_at,
        )
        look = found[0]
        epoch = _short(look["epoch"])
        now = Snapshot.parse(look["snapshot_now"], look["newest_id"], look["newest_at"])
        expired = max(position.seen.newest_id, position.after_id) < look["expired_id"]
        if epoch != position.epoch or expired or not look["is_known"]:
            return Page([], Position(epoch, now), reset=True)
        end = batch or now
        events = [self._event(row, position, end) for row in found if row["is_event"]]
        if look["more"]:
            return Page(events, events[-1].position, more=True)
        return Page(events, Position(epoch, end), more=batch is not None)

    def _event(self, row: Mapping[str, Any], position: Position, batch: Snapshot) -> Event:
        at = Position(position.epoch, position.seen, batch, row["id"])
        return Event(row, position=at, cursor=self.cursor(at))

    def event_behind(self, event: Event, seen: Snapshot) -> Event:
        """Give an event as it is to a reader that had seen more than the look that found it."""
        at = replace(event.position, seen=seen)
        return Event(event.row, position=at, cursor=self.cursor(at))

    def cursor(self, position: Position) -> str:
        """Write a position down."""
        batch = [position.batch.packed(), position.after_id] if position.batch else []
        return self._cursors.seal([position.epoch, position.seen.packed(), *batch], bound_to=BOUND_TO)

    def position(self, cursor: str) -> Position | None:
        """Read what `cursor` gave; None where it was something else."""
        opened = self._cursors.open(cursor, bound_to=BOUND_TO)
        if opened is None:
            return None
        epoch, seen, *batch = opened
        if not batch:
            return Position(epoch, Snapshot.unpacked(seen))
        return Position(epoch, Snapshot.unpacked(seen), Snapshot.unpacked(batch[0]), batch[1])


def _short(epoch: str) -> str:
    return hashlib.sha256(epoch.encode()).hexdigest()[:12]
