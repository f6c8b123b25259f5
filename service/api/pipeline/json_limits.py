"""Bounds on how many values a JSON body holds."""

from __future__ import annotations

MAX_VALUES = 50_000  # a thousand tasks with all their fields have 14,000


class JsonValueCounter:
    """A count of the texts, opening brackets and commas of a JSON text, taken while its parts arrive."""

    def __init__(self) -> None:
        self.count = 0
        self.has_constants = False
        """The text has NaN or Infinity: they are not JSON (RFC 8259, section 6), but Python accepts them."""
        self._in_text = False
        self._is_escaped = False

    def add(self, part: bytes) -> None:
        """Count the values of the next part."""
        if not part:
            return
        bare = part[self._is_escaped :].replace(rb"\\", b"").replace(rb"\"", b"")
        self._is_escaped = bare.endswith(b"\\")
        pieces = bare.split(b'"')
        outside = b"".join(pieces[self._in_text :: 2])
        self.has_constants |= b"N" in outside or b"I" in outside
        self.count += (len(pieces) - self._in_text) // 2 + sum(outside.count(sign) for sign in (b",", b"[", b"{"))
        self._in_text ^= len(pieces) % 2 == 0
