"""The media type of a file, detected from its first bytes."""

from __future__ import annotations

import codecs
import re

import puremagic

HEAD_BYTES = 36 * 1024  # the library's patterns reach no further
UNKNOWN, TEXT = "application/octet-stream", "text/plain"
ZIP_HEAD, ZIP = b"PK\x03\x04", "application/zip"
# A pattern of this length is no coincidence, in text and in other content. A shorter one needs a matching extension.
MIN_TEXT_PATTERN_BYTES, MIN_PATTERN_BYTES = 4, 3
CONTROL = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")
MEDIA_TYPE = re.compile(r"[a-z0-9][\w.+-]*/[a-z0-9][\w.+-]*", re.ASCII | re.IGNORECASE)


def detect(head: bytes, filename: str) -> str:
    """Return the media type of a file that begins with these bytes.

    The filename only decides between types that begin alike, such as office documents.
    """
    is_text = _is_text(head)
    extension = f".{filename.rpartition('.')[2].lower()}"
    matches = [one for one in _matches(head) if MEDIA_TYPE.fullmatch(one.mime_type or "")]
    if named := [one for one in matches if one.extension == extension]:
        return str(named[0].mime_type)
    if head.startswith(ZIP_HEAD):
        return ZIP
    min_bytes = MIN_TEXT_PATTERN_BYTES if is_text else MIN_PATTERN_BYTES
    if certain := [one for one in matches if len(one.byte_match) >= min_bytes]:
        return str(certain[0].mime_type)
    return TEXT if is_text else UNKNOWN


def _matches(head: bytes) -> list[puremagic.PureMagicWithConfidence]:
    try:
        return puremagic.magic_string(head)  # without the filename: the library would open a file of that name
    except (puremagic.PureError, ValueError):
        return []


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: the last character may be cut
    except UnicodeDecodeError:
        return False
    return bool(head) and not CONTROL.search(text)
