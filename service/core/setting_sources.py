"""Where settings come from, and what their text is read as."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from typing_extensions import override


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
