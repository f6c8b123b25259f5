"""The settings of the service, read once from the environment, `.env` and mounted secret files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.networks import IPvAnyNetwork
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from service.core.errors import StartError

SECRETS_FOLDER = Path("/run/secrets")
MIN_SECRET_KEY_BYTES = 32
MIN_BUCKET_CHARACTERS = 3  # of S3
EXAMPLE_SECRET_KEY = "change-me"  # noqa: S105 - the start of the example's value, which must not sign anything


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


LogLevel = Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _is_parsable(address: str) -> bool:
    """Return whether an address, of one host or several, parses; a password cut in two would reach the log."""
    try:
        parts = urlsplit(f"//{address}")
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        return False
    return bool(address) and "@" not in parts.path and not parts.fragment


class _NonEmptySource(PydanticBaseSettingsSource):
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


class Settings(BaseSettings):
    """All settings; the README describes each one."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    database_url: SecretStr = SecretStr("")
    database_listen_url: SecretStr = SecretStr("")
    database_pooler: Literal["", "transaction"] = ""
    database_pool_size: int = Field(default=10, ge=1, le=1000)
    database_statement_timeout_ms: int = Field(default=5000, ge=1, le=3_600_000)
    migrate_on_start: bool | None = None
    sql_admin: bool = False
    event_retention_days: int = Field(default=90, ge=30, le=36_500)
    redis_url: SecretStr = SecretStr("")
    openweather_api_key: SecretStr = SecretStr("")
    openweather_url: str = "https://api.openweathermap.org"
    weather_timeout_seconds: float = Field(default=2, gt=0, le=60)
    weather_cache_seconds: int = Field(default=3600, ge=0, le=7 * 24 * 3600)
    rate_limit_per_minute: int = Field(default=100, ge=0, le=1_000_000)
    login_limit_per_minute: int = Field(default=10, ge=0, le=1_000_000)
    max_subscriptions_per_user: int = Field(default=20, ge=1, le=1_000_000)
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)] = ()
    attachments_url: str = "file://.data/attachments"
    attachment_max_bytes: int = Field(default=26_214_400, ge=1, le=10_000_000_000)
    attachment_quota_bytes: int = Field(default=0, ge=0, le=2**50)
    s3_endpoint_url: str = ""
    aws_region: str = ""
    aws_access_key_id: str = ""
    aws_secret_access_key: SecretStr = SecretStr("")
    aws_session_token: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")
    secret_key_previous: SecretStr = SecretStr("")
    access_token_minutes: int = Field(default=15, ge=1, le=24 * 60)
    refresh_token_days: int = Field(default=30, ge=1, le=3650)
    admin_username: str = ""
    admin_password: SecretStr = SecretStr("")
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = "INFO"
    log_file: str = "app.log"
    log_format: Literal["text", "json"] = "text"
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=64)

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # An empty variable counts as unset, so that it does not hide a secret file.
        sources = (env_settings, dotenv_settings)
        return (init_settings, *(_NonEmptySource(settings_cls, source) for source in sources), file_secret_settings)

    @field_validator("database_url", "database_listen_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        scheme, _, rest = value.get_secret_value().partition("://")
        if not value:
            return value
        if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"} or not _is_parsable(rest):
            raise ValueError(
                "takes postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters in it percent-encoded"
            )
        return SecretStr(f"postgresql://{rest}")

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        scheme, _, rest = value.get_secret_value().partition("://")
        network = scheme in {"redis", "rediss"} and _is_parsable(rest) and re.fullmatch(r"[^/?]+(/\d*)?(\?.*)?", rest)
        if value and not network and not (scheme == "unix" and rest):
            raise ValueError("takes redis://:PASSWORD@HOST:PORT/DATABASE, special characters in it percent-encoded")
        return value

    @field_validator("attachments_url")
    @classmethod
    def _check_attachments_url(cls, value: str) -> str:
        bucket = re.fullmatch(r"s3://([A-Za-z0-9][\w.-]*)(/[\w.!*'()/-]*)?", value, re.ASCII)
        if not bucket and not re.fullmatch(r"file://[^\0]+", value):
            raise ValueError("takes file://FOLDER or s3://BUCKET/PREFIX")
        if bucket and len(bucket[1]) < MIN_BUCKET_CHARACTERS:
            raise ValueError(f"the bucket's name is too short: at least {MIN_BUCKET_CHARACTERS} characters")
        return value

    @field_validator("openweather_url", "s3_endpoint_url")
    @classmethod
    def _check_http_url(cls, value: str, field: ValidationInfo) -> str:
        is_url = re.fullmatch(r"https?://[^/?#\s]+[^?#\s]*", value) and _is_parsable(value.partition("://")[2])
        if not is_url and (value or field.field_name == "openweather_url"):
            raise ValueError("takes http(s)://HOST, without a query")
        return value

    @field_validator("secret_key", "secret_key_previous")
    @classmethod
    def _check_key(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value()
        if key.startswith(EXAMPLE_SECRET_KEY):
            raise ValueError("holds the example's value and takes random bytes: `openssl rand -base64 48`")
        if key and len(key.encode()) < MIN_SECRET_KEY_BYTES:
            raise ValueError(f"takes at least {MIN_SECRET_KEY_BYTES} bytes: `openssl rand -base64 48`")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"\*|https?://[^/\s]+", origin):
                raise ValueError("takes origins such as https://example.org, separated by commas")
        return value

    @model_validator(mode="after")
    def _check_aws_key(self) -> Self:
        is_half = bool(self.aws_access_key_id) != bool(self.aws_secret_access_key.get_secret_value())
        if is_half and self.attachments_url.startswith("s3://"):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set together, or neither")
        return self

    @model_validator(mode="after")
    def _check_administrator(self) -> Self:
        if self.admin_username and not self.admin_password.get_secret_value():
            raise ValueError("ADMIN_USERNAME is set, so ADMIN_PASSWORD takes that account's password")
        return self

    @model_validator(mode="after")
    def _check_pooler(self) -> Self:
        if self.database_pooler and not (
            self.database_url.get_secret_value() and self.database_listen_url.get_secret_value()
        ):
            raise ValueError(
                "DATABASE_POOLER is set, so DATABASE_URL takes the pooler's URL and DATABASE_LISTEN_URL a direct one"
            )
        return self

    @property
    def direct_url(self) -> SecretStr:
        """The URL that reaches the database without a pooler."""
        return self.database_listen_url if self.database_pooler else self.database_url

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded one."""
        return not self.database_url.get_secret_value()

    @property
    def migrates_on_start(self) -> bool:
        """`MIGRATE_ON_START`; by default only the embedded database migrates."""
        return self.embedded if self.migrate_on_start is None else self.migrate_on_start


def load() -> Settings:
    """Read the settings.

    Raises StartError, which names the variable, its value (secrets masked) and the values that it accepts.
    """
    try:
        return Settings(_secrets_dir=SECRETS_FOLDER if SECRETS_FOLDER.is_dir() else None)  # type: ignore[call-arg]  # an argument of pydantic-settings
    except ValidationError as error:
        raise StartError("; ".join(_explain(problem) for problem in error.errors())) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f".env: cannot be read: {error}") from None


def _explain(problem: ErrorDetails) -> str:
    name = ".".join(str(part) for part in problem["loc"][:1])
    message = problem["msg"].removeprefix("Value error, ")
    if not name:
        return message
    is_secret = Settings.model_fields[name].annotation is SecretStr
    return f"{name.upper()}={'***' if is_secret else problem['input']!r}: {message}"
