"""The settings of the service, read once from the environment, `.env` and mounted secret files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.networks import IPvAnyNetwork
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from service.core import database_url
from service.core.errors import StartError
from service.core.setting_sources import NonEmptySource, check_origin, is_parsable, split, upper

SECRETS_FOLDER = Path("/run/secrets")
MIN_SECRET_KEY_BYTES = 32
MIN_BUCKET_CHARACTERS = 3  # of S3
EXAMPLE_SECRET_KEY = "change-me"  # noqa: S105 - the start of the example's value, which must not sign anything


LogLevel = Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def _setting(default: Any, description: str, **constraints: Any) -> Any:
    """Return a setting. `docs/configuration.md` and `.env.example` show its description and default."""
    return Field(default=default, description=description, **constraints)


class Settings(BaseSettings):
    """All settings, in the order of `docs/configuration.md`."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    database_url: SecretStr = _setting(
        SecretStr(""),
        "The database: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`. Empty: an embedded PostgreSQL under `.data/`, "
        "for development and trial.",
    )
    database_listen_url: SecretStr = _setting(
        SecretStr(""), "The same database without a pooler, for `LISTEN` and migrations. Empty: `DATABASE_URL`."
    )
    database_pooler: Literal["", "transaction"] = _setting(
        "", "`transaction` if `DATABASE_URL` leads to a PgBouncer with `pool_mode = transaction`. Empty: no pooler."
    )
    database_pool_size: int = _setting(
        10,
        "Connections of one process for requests. Four more serve reports and exports, two more bulk requests.",
        ge=1,
        le=1000,
    )
    database_statement_timeout_ms: int = _setting(
        5000, "Milliseconds after which the database cancels a statement of a request.", ge=1, le=3_600_000
    )
    migrate_on_start: bool | None = _setting(
        None, "Whether `serve` applies the migrations of this release first. Empty: only on the embedded PostgreSQL."
    )
    sql_admin: bool = _setting(
        False, "Whether administrators may read the statements, their statistics and plans under `/admin/queries`."
    )
    event_retention_days: int = _setting(
        90,
        "Days for which events are kept: a subscriber that was disconnected for less time misses nothing.",
        ge=30,
        le=36_500,
    )
    redis_url: SecretStr = _setting(
        SecretStr(""),
        "Redis, by which processes share rate limits and the weather cache: `redis://:PASSWORD@HOST:PORT/DATABASE`, "
        "`rediss://…`, `unix://…`, or `redis+sentinel://:PASSWORD@HOST:26379,HOST:26379/SERVICE/DATABASE`. Empty: each "
        "process has its own.",
    )
    rate_limit_per_minute: int = _setting(
        100,
        "Requests of a user, or of an address without a user: so many at once, and so many a minute. 0: no limit.",
        ge=0,
        le=1_000_000,
    )
    login_limit_per_minute: int = _setting(
        10,
        "Log-ins of an address; an account has ten times as many. Registrations, refreshes and every hashed password "
        "count. 0: no limit.",
        ge=0,
        le=1_000_000,
    )
    max_subscriptions_per_user: int = _setting(
        20, "WebSockets and event streams of one user on one process.", ge=1, le=1_000_000
    )
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(split)] = _setting(
        (),
        "Addresses or networks (`10.0.0.0/8`) whose `X-Forwarded-For` is believed. With a proxy it must be set, or "
        "all clients count as one.",
    )
    openweather_api_key: SecretStr = _setting(SecretStr(""), "The key of OpenWeather. Empty: tasks have no weather.")
    openweather_url: str = _setting("https://api.openweathermap.org", "The server of OpenWeather.")
    weather_timeout_seconds: float = _setting(
        2, "Seconds for which a request waits for the weather. What comes later is written into the task.", gt=0, le=60
    )
    weather_cache_seconds: int = _setting(
        3600, "Seconds for which the weather of a city is kept.", ge=0, le=7 * 24 * 3600
    )
    attachments_url: str = _setting(
        "file://.data/attachments",
        "The store of attachments: `file://FOLDER`, which all processes share, or `s3://BUCKET/PREFIX`.",
    )
    attachment_max_bytes: int = _setting(26_214_400, "The largest attachment.", ge=1, le=10_000_000_000)
    attachment_quota_bytes: int = _setting(
        2**30, "Bytes of all attachments that one user added. 0: no limit.", ge=0, le=2**50
    )
    s3_endpoint_url: str = _setting("", "The S3 server, if it is not Amazon's: `https://HOST:PORT`.")
    aws_region: str = _setting("", "The region of the bucket.")
    aws_access_key_id: str = _setting(
        "", "The key of the store. Empty: found as the tools of AWS do (profile, role of the machine)."
    )
    aws_secret_access_key: SecretStr = _setting(
        SecretStr(""), "The secret of `AWS_ACCESS_KEY_ID`; both are set, or neither."
    )
    aws_session_token: SecretStr = _setting(SecretStr(""), "The token of a temporary key.")
    secret_key: SecretStr = _setting(
        SecretStr(""),
        "Signs tokens and cursors; at least 32 bytes: `openssl rand -base64 48`. It must be set with `DATABASE_URL`. "
        "Empty: one is made and kept under `.data/`.",
        examples=["change-me-to-the-output-of-openssl-rand-base64-48"],
    )
    secret_key_previous: SecretStr = _setting(
        SecretStr(""),
        "The key before `SECRET_KEY`. It still verifies and never signs, so that a new key logs nobody out.",
    )
    access_token_minutes: int = _setting(15, "Minutes for which an access token is valid.", ge=1, le=24 * 60)
    refresh_token_days: int = _setting(30, "Days after which an unused session ends.", ge=1, le=3650)
    registration: Literal["open", "admin"] = _setting(
        "open", "Who may register accounts: everyone (`open`), or administrators only (`admin`)."
    )
    admin_username: str = _setting("", "The first administrator, created at the start if there is none.")
    admin_password: SecretStr = _setting(SecretStr(""), "The password of `ADMIN_USERNAME`; must be set with it.")
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)] = _setting(
        (),
        "Origins whose web pages may call the service, such as `https://example.org`, `https://*.example.org`, "
        "`capacitor://localhost`, `null` or `*`. Empty: none.",
    )
    log_level: Annotated[LogLevel, BeforeValidator(upper)] = _setting(
        "INFO", "The least severe level that is logged. `DEBUG` adds a line for each request."
    )
    log_file: str = _setting(
        "app.log",
        "A file for the log besides standard output, rotated at 50 MB; five are kept. Set and empty: none. Set it "
        "empty with several workers, because each would rotate the same file.",
    )
    log_format: Literal["text", "json"] = _setting("text", "The form of a log line.")
    host: str = _setting("127.0.0.1", "The address to listen on; `0.0.0.0` for all.", min_length=1)
    port: int = _setting(8000, "The port to listen on. With Docker Compose, the port of the host.", ge=0, le=65535)
    workers: int = _setting(1, "The number of processes that serve.", ge=1, le=64)

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
        return (init_settings, *(NonEmptySource(settings_cls, source) for source in sources), file_secret_settings)

    @field_validator("database_url", "database_listen_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        scheme, _, rest = value.get_secret_value().partition("://")
        if not value:
            return value
        if scheme not in {"postgresql", "postgres", "postgresql+asyncpg"} or not is_parsable(rest):
            raise ValueError(
                "takes postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters in it percent-encoded"
            )
        if names := database_url.unknown(f"postgresql://{rest}"):
            raise ValueError(f"takes no parameter {', '.join(names)}: PostgreSQL's drivers do not know it")
        return SecretStr(f"postgresql://{rest}")

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        scheme, _, rest = value.get_secret_value().partition("://")
        forms = {"redis": r"(/\d*)?", "rediss": r"(/\d*)?", "redis+sentinel": r"/[^/?]+(/\d+)?"}
        network = scheme in forms and is_parsable(rest) and re.fullmatch(rf"[^/?]+{forms[scheme]}(\?.*)?", rest)
        if value and not network and not (scheme == "unix" and rest):
            raise ValueError(
                "takes redis://:PASSWORD@HOST:PORT/DATABASE or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DATABASE, "
                "special characters in it percent-encoded"
            )
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
        is_url = re.fullmatch(r"https?://[^/?#\s]+[^?#\s]*", value) and is_parsable(value.partition("://")[2])
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
        return tuple(check_origin(origin) for origin in value)

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
