"""How far a reader of events has come."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any


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
