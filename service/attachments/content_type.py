"""What kind of file some content is, as far as its first bytes show."""

from __future__ import annotations

import codecs
import re

import puremagic

HEAD_BYTES = 36 * 1024  # as far as the library's patterns reach
UNKNOWN, TEXT = "application/octet-stream", "text/plain"
ZIP = (b"PK\x03\x04", "application/zip")
# Patterns this long are no accident, in text and in anything else; shorter ones count where the name says the same.
LEAST_IN_TEXT, LEAST = 4, 3
CONTROL = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")
MEDIA_TYPE = re.compile(r"[a-z0-9][\w.+-]*/[a-z0-9][\w.+-]*", re.ASCII | re.IGNORECASE)


def type_of(head: bytes, filename: str) -> str:
    """Give the media type of what begins with these bytes.

    The name only chooses between types that begin alike, as those of office documents do.
    """
    text = _is_text(head)
    extension = f".{filename.rpartition('.')[2].lower()}"
    found = [one for one in _matches(head) if MEDIA_TYPE.fullmatch(one.mime_type or "")]
    if named := [one for one in found if one.extension == extension]:
        return str(named[0].mime_type)
    if head.startswith(ZIP[0]):
        return ZIP[1]
    least = LEAST_IN_TEXT if text else LEAST
    if certain := [one for one in found if len(one.byte_match) >= least]:
        return str(certain[0].mime_type)
    return TEXT if text else UNKNOWN


def _matches(head: bytes) -> list[puremagic.PureMagicWithConfidence]:
    try:
        return puremagic.magic_string(head)  # without the name: the library opens a file of that name
    except (puremagic.PureError, ValueError):
        return []


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut in two
    except UnicodeDecodeError:
        return False
    return bool(head) and not CONTROL.search(text)
