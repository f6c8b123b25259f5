"""The event log: pages of events from the table, and cursors for positions in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.core.pagination import Cursors
from service.core.viewer import Viewer
from service.db.pool import Executor
from service.db.queries import q
from service.events.event import Event
from service.events.position import Position, Snapshot

MAX_PAGE_ROWS = 1000
ALL_TASKS_VIEWER = Viewer(id=0, is_admin=True)
CURSOR_PURPOSE = "events"


@dataclass(frozen=True)
class Page:
    """New events, the position after them, and whether more events exist already.

    reset: the position that the page was read from is not usable. `position` is the current one; the events between the
    two are unknown.
    """

    events: Sequence[Event]
    position: Position
    more: bool = False
    reset: bool = False


class EventLog:
    """The reader of the event table and the writer of its cursors."""

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors

    async def current_position(self, db: Executor) -> Position:
        """Return the position of a reader that has seen every event so far."""
        row = await q.events.position(db)
        return Position(_hashed(row["epoch"]), Snapshot.parse(row["snapshot_now"], row["newest_id"], row["newest_at"]))

    async def page(
        self,
        db: Executor,
        position: Position,
        *,
        viewer: Viewer = ALL_TASKS_VIEWER,
        max_rows: int = MAX_PAGE_ROWS,
        max_bytes: int,
    ) -> Page:
        """Return the next events that the viewer may see: at most `max_rows`, and about `max_bytes` of JSON."""
        batch = position.batch
        rows = await q.events.page(
            db,
            viewer_id=viewer.id,
            viewer_is_admin=viewer.is_admin,
            seen_snapshot=position.seen.text,
            seen_id=position.seen.newest_id,
            batch_snapshot=batch.text if batch else None,
            batch_id=batch.newest_id if batch else None,
            after_id=position.after_id,
            row_limit=max_rows,
            byte_limit=max_bytes,
            newest_at=(batch or position.seen).newest_at,
        )
        poll = rows[0]  # every row repeats what concerns the whole page
        epoch = _hashed(poll["epoch"])
        current = Snapshot.parse(poll["snapshot_now"], poll["newest_id"], poll["newest_at"])
        has_expired = max(position.seen.newest_id, position.after_id) < poll["expired_id"]
        if epoch != position.epoch or has_expired or not poll["is_known"]:
            return Page([], Position(epoch, current), reset=True)
        end = batch or current
        events = [self._event(row, position, end) for row in rows if row["is_event"]]
        if poll["more"]:
            return Page(events, events[-1].position, more=True)
        return Page(events, Position(epoch, end), more=batch is not None)

    def _event(self, row: Mapping[str, Any], position: Position, batch: Snapshot) -> Event:
        at = Position(position.epoch, position.seen, batch, row["id"])
        return Event(row, position=at, cursor=self.cursor(at))

    def event_after(self, event: Event, seen: Snapshot) -> Event:
        """Return the event with the position of a reader whose snapshot `seen` is newer than the event's."""
        at = replace(event.position, seen=seen)
        return Event(event.row, position=at, cursor=self.cursor(at))

    def cursor(self, position: Position) -> str:
        """Return the signed cursor for a position."""
        batch = [position.batch.packed(), position.after_id] if position.batch else []
        return self._cursors.seal([position.epoch, position.seen.packed(), *batch], bound_to=CURSOR_PURPOSE)

    def position(self, cursor: str) -> Position | None:
        """Return the position that a cursor stands for; None if this service did not sign the cursor."""
        opened = self._cursors.open(cursor, bound_to=CURSOR_PURPOSE)
        if opened is None:
            return None
        epoch, seen, *batch = opened
        if not batch:
            return Position(epoch, Snapshot.unpacked(seen))
        return Position(epoch, Snapshot.unpacked(seen), Snapshot.unpacked(batch[0]), batch[1])


def _hashed(epoch: str) -> str:
    return hashlib.sha256(epoch.encode()).hexdigest()[:12]
