"""The keys that sign tokens and cursors."""

from __future__ import annotations

import secrets
from pathlib import Path

from service.core.errors import StartError
from service.core.settings import SECRET_KEY_BYTES, Settings

DATA = Path(".data")


def signing_keys(settings: Settings, *, data: Path = DATA) -> tuple[str, ...]:
    """Give the keys that verify tokens, the signing one first; StartError where there must be one and is none."""
    key = settings.secret_key.get_secret_value()
    if not key and not settings.embedded:
        raise StartError(
            f"SECRET_KEY='': with an external DATABASE_URL it takes at least {SECRET_KEY_BYTES} random bytes: "
            "`openssl rand -base64 48`"
        )
    previous = settings.secret_key_previous.get_secret_value()
    try:
        return (key or _kept_key(data / "secret_key"), *([previous] if previous else []))
    except OSError as error:
        raise StartError(f"DATABASE_URL='': the embedded default needs a folder {data}/: {error.strerror}") from None


def _kept_key(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    made.touch(mode=0o600)
    made.write_text(secrets.token_urlsafe(48))
    try:
        path.hardlink_to(made)
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return path.read_text()
