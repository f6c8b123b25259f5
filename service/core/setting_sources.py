"""Where settings come from, and what their text is read as."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from typing_extensions import override

# A name with or without `*.` before it, an address, or the id of a browser's extension; and a port.
ORIGIN_HOST = r"((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:\d+)?"


def split(value: object) -> object:
    """Return the parts of a list that commas separate."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def upper(value: object) -> object:
    """Return a text in upper case."""
    return value.upper() if isinstance(value, str) else value


def is_parsable(address: str) -> bool:
    """Return whether an address, of one host or several, parses; a password cut in two would reach the log."""
    try:
        parts = urlsplit(f"//{address}")
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        return False
    return bool(address) and "@" not in parts.path and not parts.fragment


class NonEmptySource(PydanticBaseSettingsSource):
    """A source of settings without its empty values; LOG_FILE may be empty."""

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._source = source

    @override
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[object, str, bool]:
        return self._source.get_field_value(field, field_name)

    @override
    def __call__(self) -> dict[str, object]:
        return {name: value for name, value in self._source().items() if value != "" or name == "log_file"}


def check_origin(origin: str) -> str:
    """Return an origin as browsers write it, in lower case.

    Raises: ValueError for what no `Origin` header can be.
    """
    origin = origin.lower()
    if origin in {"*", "null"}:
        return origin
    scheme, _, host = origin.partition("://")
    default_port = {"http": ":80", "https": ":443"}.get(scheme, "\n")
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) or not re.fullmatch(ORIGIN_HOST, host) or not is_parsable(host):
        raise ValueError("takes origins such as https://example.org or https://*.example.org, separated by commas")
    if host.endswith(default_port):
        raise ValueError(f"takes {origin.removesuffix(default_port)}: browsers leave out the scheme's default port")
    return origin
