"""`python -m service serve`: run the service until a signal stops it."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import suppress

import uvicorn
from loguru import logger
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from service.accounts.users import check_admin_credentials
from service.api import connection_limits
from service.api.connection import limit_send_buffer
from service.api.connection_limits import ConnectionLimits
from service.api.protocols import protocols
from service.api.websocket_protocol import MAX_MESSAGE_BYTES
from service.attachments import operations
from service.core import database_url, descriptors, logs, metrics, signing_keys
from service.core.errors import StartError
from service.core.settings import Settings
from service.db import embedded, pool, readiness

SHUTDOWN_TIMEOUT_SECONDS = 10
CHECK_SECONDS = 3.0


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    """Check the settings, migrate if they say so, and serve until a signal comes."""
    logs.setup(settings)
    descriptors.raise_limit()
    connection_limits.budget(settings)
    signing_keys.signing_keys(settings)
    operations.check_storage(settings)
    _check_first_admin(settings)
    # uvicorn raises the signal again after it stopped; SystemExit then lets the embedded database stop, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGTERM))
    urls = {settings.database_url.get_secret_value(), settings.database_listen_url.get_secret_value()}
    if names := sorted({name for url in urls for name in database_url.ignored(url)}):
        logger.bind(parameters=", ".join(names)).warning("database parameters ignored")
    with embedded.database(settings) as url:
        if settings.embedded:
            logger.bind(url=url).warning("serving from an embedded PostgreSQL for development only")
        else:
            asyncio.run(_check_server(settings))
        if settings.migrates_on_start:
            _migrate(url)
        try:
            _serve(settings)
        except SystemExit as exit_:
            if exit_.code:  # uvicorn exits with a code if the address is in use
                raise StartError(
                    f"cannot serve on HOST={settings.host!r} PORT={settings.port}: the log says why"
                ) from None
            raise
    return 0


async def _check_server(settings: Settings) -> None:
    """Check the server, if it is available: without it the service starts and waits."""
    url = settings.database_url.get_secret_value()
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(CHECK_SECONDS),
            pool.connected(url, settings, pooler=settings.database_pooler) as database,
        ):
            await readiness.check_server_of(database)


def _migrate(url: str) -> None:
    # Imported here: psycopg and yoyo take 10 MiB and 0.11 s of the start.
    from service.db import migrations  # noqa: PLC0415

    if applied := migrations.migrate(url):
        logger.bind(first=applied[0], last=applied[-1]).info("{} migrations applied", len(applied))


def _check_first_admin(settings: Settings) -> None:
    if not settings.admin_username:
        return
    try:
        check_admin_credentials(settings.admin_username, settings.admin_password.get_secret_value())
    except StartError as error:
        raise StartError(f"ADMIN_USERNAME={settings.admin_username!r} ADMIN_PASSWORD='***': {error.detail}") from None


def _serve(settings: Settings) -> None:
    http, ws = protocols(
        ConnectionLimits(connection_limits.budget(settings).connections, trusted=settings.trusted_proxies)
    )
    config = uvicorn.Config(
        "service.app:from_environment",
        factory=True,
        http=http,
        ws=ws,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_SECONDS,
    )
    listening_socket = config.bind_socket()
    limit_send_buffer(listening_socket)
    server = uvicorn.Server(config)
    if settings.workers > 1:
        with suppress(KeyboardInterrupt), metrics.shared():
            Multiprocess(config, sockets=[listening_socket]).run()
    else:
        config.load_app()
        with suppress(KeyboardInterrupt):  # uvicorn stopped for it and raised it again
            server.run(sockets=[listening_socket])
        if not server.started:
            sys.exit(STARTUP_FAILURE)
