"""The event log: reads events from the table, and positions from cursors."""

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

CHANNEL = "task_events"
PAGE_ROWS = 1000
ALL_TASKS_VIEWER = Viewer(id=0, is_admin=True)
BOUND_TO = "events"


@dataclass(frozen=True)
class Page:
    """What was new, where to go on, and whether there is more already.

    `reset`: the position was of no use any more; `position` is the present one and what lies between is unknown.
    """

    events: Sequence[Event]
    position: Position
    more: bool = False
    reset: bool = False


class EventLog:
    """Reads events from the table, and positions from cursors."""

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors

    async def here(self, db: Executor) -> Position:
        """Give the position of who has seen everything."""
        row = await q.events.position(db)
        return Position(_short(row["epoch"]), Snapshot.parse(row["snapshot_now"], row["newest_id"], row["newest_at"]))

    async def page(
        self, db: Executor, position: Position, *, viewer: Viewer = ALL_TASKS_VIEWER, rows: int = PAGE_ROWS, size: int
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

    def event_after(self, event: Event, seen: Snapshot) -> Event:
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
