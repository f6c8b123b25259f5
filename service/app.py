"""The application: its routes, and what its lifespan opens in order and closes in reverse.

`cli.serve` has checked the settings, migrated and bound the socket by then.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from fastapi import FastAPI
from loguru import logger
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from service.accounts.api_keys import ApiKeys
from service.accounts.passwords import Passwords
from service.accounts.session_cache import SessionCache
from service.accounts.sessions import Sessions
from service.accounts.tickets import Tickets
from service.accounts.tokens import RefreshTokens, Tokens
from service.accounts.users import Users
from service.api import connection_limits, openapi, pages
from service.api.connection_limits import SubscriptionLimits
from service.api.origins import Origins
from service.api.pipeline.body_limits import BodyLimits
from service.api.pipeline.request_pipeline import RequestPipeline
from service.api.router import Router
from service.api.routes import analytics, auth, events, health, statements, tasks, users, websocket
from service.api.routes import attachments as attachment_routes
from service.api.routes import sessions as session_routes
from service.api.state import AppState
from service.attachments import operations, reconciler
from service.core import descriptors, logs, signing_keys
from service.core import redis as redis_client
from service.core import settings as settings_module
from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import ServiceError
from service.core.pagination import Cursors
from service.core.refusals import Refusals
from service.core.settings import Settings
from service.db import cleanup, embedded, pool, readiness
from service.events.hub import Hub
from service.events.listener import Listener
from service.events.log import EventLog
from service.events.signals import Heartbeat, PollSignal
from service.ratelimit.login_limiter import Limits
from service.weather import backfill, client

TITLE, VERSION = "Task Manager", "0.1.0"
DOCUMENT_PREFIXES = ("/openapi.json", "/docs", "/redoc", pages.STATIC_PATH)
# New objects before the garbage collector looks for cycles. Thirty requests in progress have more than Python's 700, so
# that it ran for each wave of requests: 8 % of a GET's CPU time.
GC_THRESHOLD = 10_000
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.25, 5.0
CORS = {
    "allow_methods": ["GET", "POST", "PUT", "PATCH", "DELETE"],
    "allow_headers": [
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "If-Range",
        "Last-Event-ID",
        "Range",
        "X-Request-ID",
    ],
    "expose_headers": [
        "Accept-Ranges",
        "Content-Disposition",
        "Content-Range",
        "ETag",
        "Idempotency-Replayed",
        "Link",
        "Location",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "X-Request-ID",
    ],
}


def from_environment() -> FastAPI:
    """Create the application of one process with the settings of its environment, and set up the log of a worker."""
    gc.set_threshold(GC_THRESHOLD)
    settings = settings_module.load()
    if parent := parent_process():  # one of several workers
        logs.setup(settings)
        Thread(target=_stop_with, args=[parent], daemon=True).start()
    return create_app(settings)


def _stop_with(parent: BaseProcess) -> None:
    """Stop this worker when its parent ends, even if the parent was killed, so that no worker keeps the port."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


class Application(FastAPI):
    """FastAPI declares and documents the routes; the pipeline and the compiled endpoints answer them."""

    pipeline: ASGIApp

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = super().__call__ if scope["type"] == "lifespan" else self.pipeline
        await handle(scope, receive, send)


def create_app(settings: Settings, *, passwords: Passwords | None = None) -> Application:
    """Create the application. Its lifespan opens the database and all else."""
    keys = signing_keys.signing_keys(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            state = await _open_services(stack, settings, keys=keys, passwords=passwords or Passwords())
            app.state.services = state
            await _start_tasks(stack, state, settings)
            yield

    app = Application(
        title=TITLE,
        version=VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        generate_unique_id_function=openapi.operation_id,
        lifespan=lifespan,
    )
    router = _add_routes(app, settings)
    openapi.describe(app)
    app.pipeline = RequestPipeline(
        app,
        find_endpoint=router.find,
        documents=pages.pages(app),
        serve_websocket=websocket.serve,
        body_limits=BodyLimits(max_attachment_bytes=settings.attachment_max_bytes),
        cors={**CORS, **origins} if (origins := Origins(settings.cors_origins).cors_options()) else None,
    )
    return app


def _add_routes(app: FastAPI, settings: Settings) -> Router:
    """Declare all routes, and return the table of their endpoints."""
    modules = [auth, session_routes, users, tasks, attachment_routes, events, websocket, analytics, health]
    if settings.sql_admin:
        modules.append(statements)
    router = Router(document_prefixes=DOCUMENT_PREFIXES)
    for module in modules:
        app.include_router(module.router)
        router.add(module.router)
    return router


async def _open_services(
    stack: AsyncExitStack, settings: Settings, *, keys: tuple[str, ...], passwords: Passwords
) -> AppState:
    """Open what requests need, in order; the stack closes it in reverse."""
    direct_url = await asyncio.to_thread(stack.enter_context, embedded.database(settings))
    url, pooler = settings.database_url.get_secret_value() or direct_url, settings.database_pooler
    poll_signal, heartbeat = PollSignal(), Heartbeat()
    connected = partial(pool.connected, url, settings, pooler=pooler, on_change=poll_signal.on_commit)
    database = await stack.enter_async_context(connected())
    reports = await stack.enter_async_context(connected("reports"))
    bulk_database = await stack.enter_async_context(connected("bulk"))
    stack.callback(passwords.close)
    redis = await stack.enter_async_context(redis_client.connected(settings.redis_url.get_secret_value()))
    weather = await stack.enter_async_context(client.opened(settings, redis))
    attachments = await stack.enter_async_context(operations.opened(settings))
    tokens = Tokens(keys, minutes=settings.access_token_minutes)
    session_cache = SessionCache(database, tokens, is_current=heartbeat.is_fresh)
    cursors = Cursors(keys)
    event_log = EventLog(cursors)
    hub = Hub(database, event_log)
    return AppState(
        db=database,
        bulk=bulk_database,
        reports=reports,
        exports=ConcurrencyLimiter("exports", total=pool.MAX_EXPORTS, per_user=1),
        bulks=ConcurrencyLimiter("bulk creations", total=pool.BULK_CONNECTIONS, per_user=1),
        searches=ConcurrencyLimiter(
            "searches",
            total=max(1, settings.database_pool_size * 4 // 5),
            per_user=max(1, settings.database_pool_size * 2 // 5),
        ),
        users=Users(passwords=passwords, registration=settings.registration),
        sessions=Sessions(
            passwords=passwords,
            tokens=tokens,
            refresh_tokens=RefreshTokens(keys),
            session_cache=session_cache,
            lifetime_days=settings.refresh_token_days,
        ),
        api_keys=ApiKeys(forget_user=session_cache.forget),
        tickets=Tickets(session_cache),
        session_cache=session_cache,
        cursors=cursors,
        weather=weather,
        attachments=attachments,
        limits=Limits.of(settings, redis),
        subscriptions=SubscriptionLimits(
            connection_limits.budget(settings).subscriptions, per_user=settings.max_subscriptions_per_user
        ),
        redis=redis,
        event_log=event_log,
        hub=hub,
        listener=Listener(
            settings.database_listen_url.get_secret_value() or direct_url,
            event_log=event_log,
            hub=hub,
            sessions=session_cache,
            poll_signal=poll_signal,
            heartbeat=heartbeat,
        ),
        origins=Origins(settings.cors_origins, trusted_proxies=settings.trusted_proxies),
    )


async def _start_tasks(stack: AsyncExitStack, state: AppState, settings: Settings) -> None:
    """Start the background tasks; the stack cancels them in reverse."""
    await stack.enter_async_context(_running(state.listener.run()))
    await stack.enter_async_context(_running(descriptors.watch(Refusals())))
    await stack.enter_async_context(_running(cleanup.run(state.db, days=settings.event_retention_days)))
    await stack.enter_async_context(_running(reconciler.run(state.db, state.attachments)))
    if settings.openweather_api_key:
        await stack.enter_async_context(_running(backfill.run(state.db, state.weather)))
    first_check = _FirstReadinessCheck(state, settings)
    if not await first_check.succeeds():
        await stack.enter_async_context(_running(first_check.retry()))


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class _FirstReadinessCheck:
    """The check that the database is ready, repeated until it succeeds; then it creates the first administrator."""

    def __init__(self, state: AppState, settings: Settings) -> None:
        self._state = state
        self._settings = settings
        self._logged_reason = ""

    async def succeeds(self) -> bool:
        """Create the first administrator if the database is ready; else log the reason once and return False."""
        try:
            await readiness.check(self._state.db)
            if self._settings.admin_username:
                await self._state.users.ensure_admin(
                    self._state.db,
                    username=self._settings.admin_username,
                    password=self._settings.admin_password.get_secret_value(),
                )
        except ServiceError as error:
            if error.detail != self._logged_reason:
                self._logged_reason = error.detail
                logger.bind(reason=error.detail, cause=str(error.__cause__)).warning("service not ready")
            return False
        logger.info("service ready")
        return True

    async def retry(self) -> None:
        """Repeat the check until it succeeds."""
        pause = FIRST_PAUSE_SECONDS
        await asyncio.sleep(pause)
        while not await self.succeeds():
            pause = min(pause * 2, MAX_PAUSE_SECONDS)
            await asyncio.sleep(pause)
