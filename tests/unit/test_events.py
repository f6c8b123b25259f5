"""Positions and what carries them: a cursor comes back as it was written, and a frame is what the standard says."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from service.core.pagination import Cursors
from service.events.event import text_frame
from service.events.log import CURSOR_PURPOSE, EventLog
from service.events.position import Position, Snapshot

CURSORS = Cursors(("a" * 32,))
EVENT_LOG = EventLog(CURSORS)
NUMBERS = st.integers(0, 2**63 - 1)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Generate snapshots as PostgreSQL returns them."""
    xmin = draw(st.integers(3, 2**62))
    still_open = draw(st.frozensets(st.integers(xmin, xmin + 500), max_size=30))
    return Snapshot(xmin, xmin + draw(st.integers(501, 600)), still_open, draw(NUMBERS))


@st.composite
def positions(draw: st.DrawFn) -> Position:
    """Generate positions between two polls, and in the middle of a batch."""
    epoch, seen = draw(st.text("0123456789abcdef", min_size=12, max_size=12)), draw(snapshots())
    if draw(st.booleans()):
        return Position(epoch, seen)
    return Position(epoch, seen, draw(snapshots()), draw(NUMBERS))


@pytest.mark.parametrize(
    ("text", "still_open"), [("3:3:", []), ("10:20:", []), ("10:20:10,14,19", [10, 14, 19]), ("7:8:7", [7])]
)
def test_a_snapshot_is_read_and_written_as_postgresql_does(text: str, still_open: list[int]) -> None:
    snapshot = Snapshot.parse(text, 5)
    assert (sorted(snapshot.running), snapshot.newest_id, snapshot.text) == (still_open, 5, text)
    xmin, xmax, _ = text.split(":")
    assert (snapshot.xmin, snapshot.xmax) == (int(xmin), int(xmax))


@given(snapshots())
def test_a_snapshot_comes_back_as_it_was_packed(snapshot: Snapshot) -> None:
    assert Snapshot.unpacked(snapshot.packed()) == snapshot
    assert Snapshot.parse(snapshot.text, snapshot.newest_id) == snapshot


@given(positions())
def test_a_cursor_comes_back_as_the_position_that_it_was_made_of(position: Position) -> None:
    assert EVENT_LOG.position(EVENT_LOG.cursor(position)) == position


CURSOR = EVENT_LOG.cursor(Position("e" * 12, Snapshot(3, 9, frozenset({4}), 17), Snapshot(5, 10, frozenset(), 20), 18))
RAW = base64.urlsafe_b64decode(CURSOR + "=" * (-len(CURSOR) % 4))


@pytest.mark.parametrize("bit", range(len(RAW) * 8))
def test_a_cursor_with_any_bit_flipped_has_no_position(bit: int) -> None:
    forged = bytearray(RAW)
    forged[bit // 8] ^= 1 << bit % 8
    assert EVENT_LOG.position(base64.urlsafe_b64encode(forged).decode().rstrip("=")) is None


@given(st.text())
def test_an_invalid_cursor_has_no_position(text: str) -> None:
    assert EVENT_LOG.position(text) is None


def test_a_cursor_of_another_key_or_list_is_invalid_and_one_of_the_previous_key_is_valid() -> None:
    other, rotated = EventLog(Cursors(("b" * 32,))), EventLog(Cursors(("b" * 32, "a" * 32)))
    assert other.position(CURSOR) is None
    assert rotated.position(CURSOR) == EVENT_LOG.position(CURSOR) is not None
    content = CURSORS.open(CURSOR, bound_to=CURSOR_PURPOSE)
    assert content
    assert EVENT_LOG.position(CURSORS.seal(content, bound_to=["tasks"])) is None
    assert EVENT_LOG.position(CURSORS.make(value=1, key=1, bound_to=["-created_at", {}])) is None


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_a_frame_is_a_whole_unmasked_text_frame(size: int) -> None:
    body = bytes(32 + n % 90 for n in range(size))
    stream = StreamReader()
    stream.feed_data(text_frame(body))
    parsing = Frame.parse(stream.read_exact, mask=False)
    with pytest.raises(StopIteration) as parsed:
        next(parsing)
    frame = parsed.value.value
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.TEXT, True, body)
    assert (frame.rsv1, frame.rsv2, frame.rsv3) == (False, False, False)
    stream.feed_eof()
    assert stream.buffer == b""
    assert text_frame(body) == Frame(Opcode.TEXT, body).serialize(mask=False)
