"""`python -m service serve`: run the service until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import suppress

import uvicorn
from loguru import logger
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from service.accounts.users import check_admin
from service.api import connection_limits
from service.api.connection import limit_send_buffer
from service.api.connection_limits import ConnectionLimits
from service.api.protocols import MAX_MESSAGE_BYTES, protocols
from service.attachments import operations
from service.core import descriptors, logs, metrics, signing_keys
from service.core.errors import StartError
from service.core.settings import Settings
from service.db import embedded, migrations

GRACE_PERIOD_SECONDS = 10


def run(_arguments: argparse.Namespace, settings: Settings) -> int:
    """Run the service until it is told to stop."""
    logs.setup(settings)
    descriptors.raise_limit()
    connection_limits.budget(settings)
    signing_keys.signing_keys(settings)
    operations.check(settings)
    _check_admin(settings)
    # uvicorn hands the signal that stopped it on; the embedded database is still to be stopped then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for hung_up in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(hung_up, lambda *_: signal.raise_signal(signal.SIGTERM))
    with embedded.database(settings) as url:
        if settings.embedded:
            logger.warning("DATABASE_URL is empty: an embedded PostgreSQL serves, for development only: {}", url)
        if settings.migrates_on_start and (applied := migrations.migrate(url)):
            logger.bind(first=applied[0], last=applied[-1]).info("{} migrations applied", len(applied))
        try:
            _serve(settings)
        except SystemExit as stopped:
            if stopped.code:  # uvicorn's own, for an address in use and the like
                raise StartError(
                    f"cannot serve on HOST={settings.host!r} PORT={settings.port}: the log says why"
                ) from None
            raise
    return 0


def _check_admin(settings: Settings) -> None:
    if not settings.admin_username:
        return
    try:
        check_admin(settings.admin_username, settings.admin_password.get_secret_value())
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
        timeout_graceful_shutdown=GRACE_PERIOD_SECONDS,
    )
    listening = config.bind_socket()
    limit_send_buffer(listening)
    server = uvicorn.Server(config)
    if settings.workers > 1:
        with suppress(KeyboardInterrupt), metrics.shared():
            Multiprocess(config, sockets=[listening]).run()
    else:
        config.load_app()
        with suppress(KeyboardInterrupt):  # uvicorn has stopped for it, and hands it on
            server.run(sockets=[listening])
        if not server.started:
            sys.exit(STARTUP_FAILURE)
