"""What kind of file a content shows."""

from __future__ import annotations

import io
import zipfile

import pytest

from service.attachments.content_type import HEAD_BYTES, MEDIA_TYPE, detect


def zipped(*names: str) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name in names:
            archive.writestr(name, "<x/>")
    return whole.getvalue()


OFFICE = zipped("[Content_Types].xml", "word/document.xml")
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        (b"", "a.pdf", "application/octet-stream"),
        (b"hello\n", "a.png", "text/plain"),
        ("Привет".encode(), "a", "text/plain"),
        ("Привет".encode()[:-1], "a", "text/plain"),
        ("Grüße".encode("latin-1"), "a.txt", "application/octet-stream"),
        (b"BMW is a car", "a", "text/plain"),
        (b"MZ", "a.txt", "text/plain"),
        (b"a\0b", "a.txt", "application/octet-stream"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a.txt", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "a", "image/jpeg"),
        (b"GIF89a\x01\0\x01\0", "a", "image/gif"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a.exe", "application/pdf"),
        (b"%PDF-1.7\n", "a", "application/pdf"),
        (b"<!DOCTYPE html><script>", "a.png", "text/html"),
        (b"<svg xmlns=", "a.png", "image/svg+xml"),
        (b"MZ\x90\0" + bytes(56), "a.png", "application/vnd.microsoft.portable-executable"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "a", "application/x-gzip"),
        (OFFICE, "a.docx", DOCX),
        (OFFICE, "A.DOCX", DOCX),
        (OFFICE, "a.zip", "application/zip"),
        (OFFICE, "a.png", "application/zip"),
        (zipped("a"), "", "application/zip"),
        (b'{"a": 1}', "a.json", "application/json"),
        (b'{"a": 1}', "a.txt", "text/plain"),
        (b"BM" + b"\1" * 60, "a.bmp", "image/x-ms-bmp"),
        (b"BM" + b"\1" * 60, "a", "application/octet-stream"),
        (bytes(range(7, 200)), "a.pdf", "application/octet-stream"),
        (b"\0" * 100_000, "../../etc/passwd", "application/octet-stream"),
    ],
)
def test_the_content_shows_it(content: bytes, name: str, kind: str) -> None:
    assert detect(content[:HEAD_BYTES], name) == kind


@pytest.mark.parametrize("name", ["/etc/passwd", __file__, "a" * 255, ".", "\N{GRINNING FACE}.docx", "a.\0"])
def test_a_name_opens_no_file_and_is_no_type(name: str) -> None:
    assert detect(b"hello", name) == "text/plain"
    assert MEDIA_TYPE.fullmatch(detect(OFFICE, name))
