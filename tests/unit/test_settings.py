"""Settings: what each variable takes, what a bad one says, and where the signing key comes from."""

from __future__ import annotations

import stat
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from ipaddress import ip_network
from multiprocessing import get_context
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.core import settings
from service.core.errors import StartError
from service.core.settings import Settings, load
from service.core.signing_keys import signing_keys

KEY = "0123456789abcdef" * 2
OTHER_KEY = "fedcba9876543210" * 2
URL = "postgresql://ada:s3cret@db.example:5432/tasks"

# A variable, its default, a good value and what that is read as.
GOOD: list[tuple[str, object, str, object]] = [
    ("DATABASE_URL", "", URL, URL),
    ("DATABASE_LISTEN_URL", "", URL, URL),
    ("DATABASE_POOLER", "", "transaction", "transaction"),
    ("DATABASE_POOL_SIZE", 10, "1", 1),
    ("DATABASE_STATEMENT_TIMEOUT_MS", 5000, "250", 250),
    ("MIGRATE_ON_START", None, "false", False),
    ("SQL_ADMIN", False, "true", True),
    ("EVENT_RETENTION_DAYS", 90, "30", 30),
    ("REDIS_URL", "", "rediss://:s3cret@cache.example:6380/1", "rediss://:s3cret@cache.example:6380/1"),
    ("OPENWEATHER_API_KEY", "", "s3cret", "s3cret"),
    ("OPENWEATHER_URL", "https://api.openweathermap.org", "http://weather.example/v1", "http://weather.example/v1"),
    ("WEATHER_TIMEOUT_SECONDS", 2.0, "0.5", 0.5),
    ("WEATHER_CACHE_SECONDS", 3600, "0", 0),
    ("RATE_LIMIT_PER_MINUTE", 100, "0", 0),
    ("LOGIN_LIMIT_PER_MINUTE", 10, "5", 5),
    ("MAX_SUBSCRIPTIONS_PER_USER", 20, "1", 1),
    ("TRUSTED_PROXIES", (), "10.0.0.1, fd00::/8", (ip_network("10.0.0.1/32"), ip_network("fd00::/8"))),
    (
        "ATTACHMENTS_URL",
        "file://.data/attachments",
        "s3://bucket.example/deep/prefix",
        "s3://bucket.example/deep/prefix",
    ),
    ("ATTACHMENT_MAX_BYTES", 26_214_400, "1", 1),
    ("ATTACHMENT_QUOTA_BYTES", 2**30, "1000000000", 1_000_000_000),
    ("S3_ENDPOINT_URL", "", "https://s3.example:9000", "https://s3.example:9000"),
    ("AWS_REGION", "", "eu-central-1", "eu-central-1"),
    ("AWS_ACCESS_KEY_ID", "", "AKIA", "AKIA"),
    ("AWS_SECRET_ACCESS_KEY", "", "s3cret", "s3cret"),
    ("AWS_SESSION_TOKEN", "", "s3cret", "s3cret"),
    ("SECRET_KEY", "", KEY, KEY),
    ("SECRET_KEY_PREVIOUS", "", OTHER_KEY, OTHER_KEY),
    ("ACCESS_TOKEN_MINUTES", 15, "60", 60),
    ("REFRESH_TOKEN_DAYS", 30, "1", 1),
    ("REGISTRATION", "open", "admin", "admin"),
    ("ADMIN_USERNAME", "", "root", "root"),
    ("ADMIN_PASSWORD", "", "a long password", "a long password"),
    ("CORS_ORIGINS", (), "https://a.example, http://b.example:8080", ("https://a.example", "http://b.example:8080")),
    ("LOG_LEVEL", "INFO", "debug", "DEBUG"),
    ("LOG_FILE", "app.log", "", ""),
    ("LOG_FORMAT", "text", "json", "json"),
    ("HOST", "127.0.0.1", "0.0.0.0", "0.0.0.0"),
    ("PORT", 8000, "0", 0),
    ("WORKERS", 1, "4", 4),
]
# A variable, a bad value, and what the line says that it takes.
BAD = [
    ("DATABASE_URL", "mysql://ada:s3cret@db/tasks", "takes postgresql://"),
    ("DATABASE_URL", "s3cret", "takes postgresql://"),
    ("DATABASE_URL", "postgresql://", "takes postgresql://"),
    ("DATABASE_LISTEN_URL", "mysql://ada:s3cret@db/tasks", "takes postgresql://"),
    ("DATABASE_POOLER", "session", "'transaction'"),
    ("DATABASE_POOL_SIZE", "0", "greater than or equal to 1"),
    ("DATABASE_STATEMENT_TIMEOUT_MS", "5s", "integer"),
    ("MIGRATE_ON_START", "perhaps", "boolean"),
    ("SQL_ADMIN", "perhaps", "valid boolean"),
    ("EVENT_RETENTION_DAYS", "29", "greater than or equal to 30"),
    ("REDIS_URL", "s3cret", "takes redis://"),
    ("REDIS_URL", "http://:s3cret@cache.example", "takes redis://"),
    ("REDIS_URL", "redis://", "takes redis://"),
    ("REDIS_URL", "redis://:s3cret@cache.example:port", "takes redis://"),
    ("REDIS_URL", "redis://:s3cret@cache.example/one", "takes redis://"),
    ("REDIS_URL", "redis+sentinel://:s3cret@cache.example:26379", "takes redis://"),
    ("REDIS_URL", "redis+sentinel://cache.example:s3cret/tasks", "takes redis://"),
    ("OPENWEATHER_URL", "api.openweathermap.org", "takes http(s)://"),
    ("OPENWEATHER_URL", "https://weather.example?units=metric", "without a query"),
    ("WEATHER_TIMEOUT_SECONDS", "0", "greater than 0"),
    ("WEATHER_TIMEOUT_SECONDS", "nan", "less than or equal to 60"),
    ("WEATHER_CACHE_SECONDS", "-1", "greater than or equal to 0"),
    ("RATE_LIMIT_PER_MINUTE", "-1", "greater than or equal to 0"),
    ("LOGIN_LIMIT_PER_MINUTE", "ten", "integer"),
    ("MAX_SUBSCRIPTIONS_PER_USER", "0", "greater than or equal to 1"),
    ("TRUSTED_PROXIES", "proxy.example", "IPv4 or IPv6 network"),
    ("TRUSTED_PROXIES", "10.0.0.1/8", "IPv4 or IPv6 network"),
    ("ATTACHMENTS_URL", "/var/lib/attachments", "takes file://FOLDER or s3://BUCKET/PREFIX"),
    ("ATTACHMENTS_URL", "file://", "takes file://FOLDER or s3://BUCKET/PREFIX"),
    ("ATTACHMENTS_URL", "s3://", "takes file://FOLDER or s3://BUCKET/PREFIX"),
    ("ATTACHMENTS_URL", "s3://b/p", "the bucket's name is too short: at least 3 characters"),
    ("ATTACHMENTS_URL", "s3://bu", "the bucket's name is too short"),
    ("ATTACHMENTS_URL", "s3://bucket/a b", "takes file://FOLDER or s3://BUCKET/PREFIX"),
    ("ATTACHMENT_MAX_BYTES", "0", "greater than or equal to 1"),
    ("ATTACHMENT_MAX_BYTES", "20MB", "integer"),
    ("ATTACHMENT_QUOTA_BYTES", "-1", "greater than or equal to 0"),
    ("S3_ENDPOINT_URL", "s3.example", "takes http(s)://"),
    ("SECRET_KEY", "s3cret", "takes at least 32 bytes"),
    ("SECRET_KEY", "change-me-s3cret-" + KEY, "takes random bytes"),
    ("SECRET_KEY_PREVIOUS", "s3cret", "takes at least 32 bytes"),
    ("ACCESS_TOKEN_MINUTES", "1.5", "integer"),
    ("REFRESH_TOKEN_DAYS", "0", "greater than or equal to 1"),
    ("CORS_ORIGINS", "https://a.example,b.example", "takes origins such as https://example.org"),
    ("CORS_ORIGINS", "https://a.example/path", "takes origins such as https://example.org"),
    ("CORS_ORIGINS", "https://a.example/", "takes origins such as https://example.org"),
    ("CORS_ORIGINS", "https://a.*.example", "takes origins such as https://example.org"),
    ("CORS_ORIGINS", "https://ada@a.example", "takes origins such as https://example.org"),
    ("CORS_ORIGINS", "https://a.example:443", "takes https://a.example: browsers leave out"),
    ("CORS_ORIGINS", "http://a.example:80", "takes http://a.example: browsers leave out"),
    ("LOG_LEVEL", "LOUD", "'INFO'"),
    ("LOG_FORMAT", "xml", "'json'"),
    ("PORT", "80\n80", "integer"),
    ("PORT", "65536", "less than or equal to 65535"),
    ("WORKERS", "-1", "greater than or equal to 1"),
]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without an `.env`, and no secrets mounted; what a test sets is gone after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "SECRETS_FOLDER", tmp_path / "secrets")
    return tmp_path


def plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def test_every_variable_has_a_case() -> None:
    assert {name.lower() for name, *_ in GOOD} == set(Settings.model_fields)


@pytest.mark.parametrize(("name", "default", "value", "expected"), GOOD)
def test_a_variable_has_its_default_and_accepts_a_valid_value(
    name: str, default: object, value: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain(getattr(load(), name.lower())) == default
    monkeypatch.setenv("ADMIN_PASSWORD", "so that ADMIN_USERNAME is not alone")
    for beside_a_pooler in ("DATABASE_URL", "DATABASE_LISTEN_URL"):
        monkeypatch.setenv(beside_a_pooler, URL)
    monkeypatch.setenv(name, value)
    assert plain(getattr(load(), name.lower())) == expected


@pytest.mark.parametrize("name", [name for name, *_ in GOOD if name != "LOG_FILE"])
def test_an_empty_variable_is_one_that_is_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    assert load() == Settings(_env_file=None)  # type: ignore[call-arg]


@pytest.mark.parametrize(("name", "value", "takes"), BAD)
def test_a_bad_value_is_reported_in_one_line(
    name: str, value: str, takes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartError) as failure:
        load()
    line = failure.value.detail
    secret = name in {"DATABASE_URL", "DATABASE_LISTEN_URL", "REDIS_URL", "SECRET_KEY", "SECRET_KEY_PREVIOUS"}
    assert line.startswith(f"{name}={'***' if secret else value!r}: ")
    assert takes in line
    assert "\n" not in line
    assert "s3cret" not in line


def test_several_bad_values_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "none")
    monkeypatch.setenv("WORKERS", "none")
    with pytest.raises(StartError, match=r"^PORT='none': .*; WORKERS='none': .*$"):
        load()


def test_an_administrator_name_requires_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_USERNAME", "root")
    with pytest.raises(StartError, match=r"^ADMIN_USERNAME.*ADMIN_PASSWORD"):
        load()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
def test_every_spelling_of_the_scheme_is_read_as_one(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://ada@db/tasks")
    assert plain(load().database_url) == "postgresql://ada@db/tasks"


def test_no_secret_is_shown() -> None:
    shown = repr(Settings(_env_file=None, database_url=URL, secret_key=KEY, admin_password="s3cret"))  # type: ignore[arg-type, call-arg]
    assert "s3cret" not in shown
    assert KEY not in shown


def test_the_environment_overrides_the_file_and_the_file_overrides_mounted_secrets(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alone / "secrets").mkdir()
    for name in ("host", "log_level", "secret_key"):
        (alone / "secrets" / name).write_text({"secret_key": f"{KEY}\n", "host": "mounted"}.get(name, "ERROR"))
    (alone / ".env").write_text("HOST=file\nLOG_LEVEL=WARNING\nNOT_OURS=1\n")
    monkeypatch.setenv("HOST", "environment")
    settings = load()
    assert (settings.host, settings.log_level, plain(settings.secret_key)) == ("environment", "WARNING", KEY)


@pytest.mark.parametrize(
    ("url", "migrate_on_start", "migrates"),
    [("", None, True), ("", False, False), (URL, None, False), (URL, True, True)],
)
def test_only_the_embedded_database_is_migrated_unasked(
    url: str, migrate_on_start: bool | None, migrates: bool
) -> None:
    settings = Settings(_env_file=None, database_url=url, migrate_on_start=migrate_on_start)  # type: ignore[arg-type, call-arg]
    assert settings.migrates_on_start is migrates
    assert settings.embedded is (url == "")


def test_an_external_database_requires_a_secret_key(alone: Path) -> None:
    settings = Settings(_env_file=None, database_url=URL)  # type: ignore[arg-type, call-arg]
    with pytest.raises(StartError, match=r"^SECRET_KEY='': .* takes at least 32 random bytes"):
        signing_keys(settings, data=alone)
    assert not list(alone.iterdir())


def test_the_previous_key_comes_second_and_signs_nothing(alone: Path) -> None:
    settings = Settings(_env_file=None, database_url=URL, secret_key=KEY, secret_key_previous=OTHER_KEY)  # type: ignore[arg-type, call-arg]
    assert signing_keys(settings, data=alone) == (KEY, OTHER_KEY)
    assert not list(alone.iterdir())


def test_the_embedded_default_makes_a_key_once_and_keeps_it_to_itself(alone: Path) -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    (key,) = signing_keys(settings, data=alone / "data")
    assert len(key) >= 32
    assert signing_keys(settings, data=alone / "data") == (key,)
    assert [path.name for path in (alone / "data").iterdir()] == ["secret_key"]
    assert stat.S_IMODE((alone / "data" / "secret_key").stat().st_mode) == 0o600


def made_at(folder: Path) -> tuple[str, ...]:
    return signing_keys(Settings(_env_file=None), data=folder)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_eight_that_start_at_once_get_the_same_key(kind: str, alone: Path) -> None:
    workers: ProcessPoolExecutor | ThreadPoolExecutor
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])  # what all of them import is imported once
    workers = ProcessPoolExecutor(8, context) if kind == "processes" else ThreadPoolExecutor(8)
    with workers:
        keys = {folder: set(workers.map(made_at, [folder] * 8)) for folder in (alone / str(n) for n in range(20))}
    assert [len(found) for found in keys.values()] == [1] * 20
    assert len(set.union(*keys.values())) == 20
    assert all([path.name for path in folder.iterdir()] == ["secret_key"] for folder in keys)


def test_an_empty_variable_hides_no_secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret_key").write_text("f" * 40)
    monkeypatch.setattr("service.core.settings.SECRETS_FOLDER", tmp_path)
    monkeypatch.setenv("SECRET_KEY", "")
    assert load().secret_key.get_secret_value() == "f" * 40


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_of_an_s3_key_pair_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "s3cret")
    assert load()
    monkeypatch.setenv("ATTACHMENTS_URL", "s3://bucket")
    with pytest.raises(StartError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set together") as failure:
        load()
    assert "s3cret" not in failure.value.detail
