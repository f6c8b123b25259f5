"""The keys that sign tokens and cursors."""

from __future__ import annotations

import secrets
from pathlib import Path

from service.core.errors import StartError
from service.core.settings import MIN_SECRET_KEY_BYTES, Settings

DATA = Path(".data")


def signing_keys(settings: Settings, *, data: Path = DATA) -> tuple[str, ...]:
    """Return the keys that verify tokens and cursors, the one that signs first.

    Raises StartError if an external database has no SECRET_KEY, or if the folder cannot be written.
    """
    key = settings.secret_key.get_secret_value()
    if not key and not settings.embedded:
        raise StartError(
            f"SECRET_KEY='': with an external DATABASE_URL it takes at least {MIN_SECRET_KEY_BYTES} random bytes: "
            "`openssl rand -base64 48`"
        )
    previous = settings.secret_key_previous.get_secret_value()
    try:
        return (key or _stored_key(data / "secret_key"), *([previous] if previous else []))
    except OSError as error:
        raise StartError(f"DATABASE_URL='': the embedded default needs a folder {data}/: {error.strerror}") from None


def _stored_key(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    new.touch(mode=0o600)
    new.write_text(secrets.token_urlsafe(48))
    try:
        path.hardlink_to(new)  # of processes that start at once one succeeds, and all read its key
    except FileExistsError:
        pass
    finally:
        new.unlink()
    return path.read_text()
