"""Positions of readers in the event log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any


@dataclass(frozen=True)
class Snapshot:
    """The transactions that a poll saw, as PostgreSQL's `xmin:xmax:xip,…`, and the event with the greatest id.

    newest_at: the time of that event in microseconds. It tells events apart after a restore, which reuses ids.
    """

    xmin: int
    xmax: int
    running: frozenset[int]
    newest_id: int
    newest_at: int = 0

    @classmethod
    @lru_cache(maxsize=64)
    def parse(cls, text: str, newest_id: int, newest_at: int = 0) -> Snapshot:
        """Parse PostgreSQL's text form. Equal snapshots are shared between readers, because each takes 1.5 KB."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid), newest_id, newest_at)

    @cached_property
    def text(self) -> str:
        """PostgreSQL's text form."""
        return f"{self.xmin}:{self.xmax}:{','.join(str(xid) for xid in sorted(self.running))}"

    def lacks(self, event_id: int, xid: int) -> bool:
        """Return whether an event is new to a reader that has seen this snapshot."""
        return event_id > self.newest_id or (xid >= self.xmin and (xid >= self.xmax or xid in self.running))

    def is_older_than(self, other: Snapshot) -> bool:
        """Return whether the other snapshot was taken later and contains more."""
        own_key = (self.newest_id, self.xmax, -len(self.running))
        return own_key < (other.newest_id, other.xmax, -len(other.running))

    def packed(self) -> list[Any]:
        """Return the snapshot as a short list for JSON."""
        running = [xid - self.xmin for xid in sorted(self.running)]
        return [self.xmin, self.xmax - self.xmin, running, self.newest_id, self.newest_at]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Snapshot:
        """Parse the list that `packed` returned."""
        xmin, length, running, *newest = packed
        return cls(xmin, xmin + length, frozenset(xmin + xid for xid in running), *newest)


@dataclass(frozen=True)
class Position:
    """The point up to which a reader has seen the event log.

    It has seen everything in the snapshot `seen`. Of the events that the snapshot `batch` added, it has seen those with
    an id up to `after_id`.
    """

    epoch: str
    seen: Snapshot
    batch: Snapshot | None = None
    after_id: int = 0


NO_POSITION = Position("", Snapshot(xmin=3, xmax=3, running=frozenset(), newest_id=0))
"""The position of a reader without a usable cursor. Its epoch matches no history, so a read from it is a reset."""
