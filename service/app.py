"""The application and its life: what is opened when it starts, in what order, and closed when it stops."""

from __future__ import annotations

import asyncio
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
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from service.accounts.api_keys import ApiKeys
from service.accounts.passwords import Passwords
from service.accounts.session_cache import SessionCache
from service.accounts.sessions import Sessions
from service.accounts.tickets import Tickets
from service.accounts.tokens import RefreshTokens, Tokens
from service.accounts.users import Users
from service.api import connection_limits, openapi, problems
from service.api.connection_limits import SubscriptionLimits
from service.api.pipeline.backpressure import BackpressureMiddleware
from service.api.pipeline.body_limits import BodyLimitMiddleware
from service.api.pipeline.rate_limit import RateLimitMiddleware
from service.api.pipeline.request_context import RequestContextMiddleware
from service.api.routes import analytics, auth, events, health, statements, tasks, users, websocket
from service.api.routes import attachments as attachment_routes
from service.api.routes import sessions as session_routes
from service.api.state import AppState
from service.attachments import operations, reconciler
from service.core import descriptors, logs, settings, signing_keys
from service.core import redis as redis_client
from service.core.concurrency import ConcurrencyLimiter
from service.core.errors import ServiceError
from service.core.pagination import Cursors
from service.core.refusals import Refusals
from service.core.settings import Settings
from service.db import cleanup, embedded, pool, readiness
from service.db.pool import Database
from service.events.hub import Hub
from service.events.listener import Listener
from service.events.log import EventLog
from service.ratelimit.login_limiter import Limits
from service.weather import backfill, client

VERSION = "0.1.0"
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.25, 5.0
ACCEPTED = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Range",
    "X-Request-ID",
]
EXPOSED = [
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
]


def from_environment() -> FastAPI:
    """Make the application of one process: its settings are read anew, its log lines set up."""
    given = settings.load()
    if parent := parent_process():  # one of several workers
        logs.setup(given)
        Thread(target=_end_with, args=[parent], daemon=True).start()
    return create_app(given)


def _end_with(parent: BaseProcess) -> None:
    """Stop where the parent was killed, so that no worker keeps the port."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def create_app(given: Settings, *, passwords: Passwords | None = None) -> FastAPI:
    """Make the application; nothing is opened before its lifespan."""
    keys = signing_keys.signing_keys(given)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            url = await asyncio.to_thread(stack.enter_context, embedded.database(given))
            listener: Listener

            def wake_listener() -> None:  # the listener is made below, with the pool whose commits wake it
                listener.changed()

            connected = partial(
                pool.connected,
                given.database_url.get_secret_value() or url,
                given,
                pooler=given.database_pooler,
                on_change=wake_listener,
            )
            database = await stack.enter_async_context(connected())
            reports = await stack.enter_async_context(connected("reports"))
            many = await stack.enter_async_context(connected("bulk"))
            hashing = passwords or Passwords()
            stack.callback(hashing.close)
            users = Users(passwords=hashing)
            tokens = Tokens(keys, minutes=given.access_token_minutes)
            session_cache = SessionCache(database, tokens)
            redis = await stack.enter_async_context(redis_client.connected(given.redis_url.get_secret_value()))
            forecaster = await stack.enter_async_context(client.opened(given, redis))
            files = await stack.enter_async_context(operations.opened(given))
            cursors = Cursors(keys)
            event_log = EventLog(cursors)
            hub = Hub(database, event_log)
            listener = Listener(
                given.database_listen_url.get_secret_value() or url,
                event_log=event_log,
                hub=hub,
                sessions=session_cache,
            )
            app.state.services = AppState(
                db=database,
                bulk=many,
                reports=reports,
                exports=ConcurrencyLimiter("exports", total=pool.MAX_EXPORTS, per_user=1),
                bulks=ConcurrencyLimiter("bulk creations", total=pool.BULK_CONNECTIONS, per_user=1),
                searches=ConcurrencyLimiter(
                    "searches",
                    total=max(1, given.database_pool_size * 4 // 5),
                    per_user=max(1, given.database_pool_size * 2 // 5),
                ),
                users=users,
                sessions=Sessions(
                    passwords=hashing,
                    tokens=tokens,
                    refresh_tokens=RefreshTokens(keys),
                    session_cache=session_cache,
                    lifetime_days=given.refresh_token_days,
                ),
                api_keys=ApiKeys(forget_user=session_cache.forget),
                tickets=Tickets(session_cache),
                session_cache=session_cache,
                cursors=cursors,
                weather=forecaster,
                attachments=files,
                limits=Limits.of(given, redis),
                subscriptions=SubscriptionLimits(
                    connection_limits.budget(given).subscriptions, per_user=given.max_subscriptions_per_user
                ),
                redis=redis,
                event_log=event_log,
                hub=hub,
                listener=listener,
                origins=given.cors_origins,
            )
            await stack.enter_async_context(_running(listener.run()))
            await stack.enter_async_context(_running(descriptors.watch(Refusals())))
            await stack.enter_async_context(_running(cleanup.run(database, days=given.event_retention_days)))
            await stack.enter_async_context(_running(reconciler.run(database, files)))
            if given.openweather_api_key:
                await stack.enter_async_context(_running(backfill.run(database, forecaster)))
            preparation = _Preparation(database, users, given)
            if not await preparation.done():
                await stack.enter_async_context(_running(preparation.wait()))
            yield

    app: FastAPI = FastAPIOffline(
        title="Task Manager",
        version=VERSION,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        lifespan=lifespan,
        redirect_slashes=False,
        swagger_ui_parameters={"persistAuthorization": True},
    )
    for room in (auth, session_routes, users, tasks, attachment_routes, events, websocket, analytics, health):
        app.include_router(room.router)
    if given.sql_admin:
        app.include_router(statements.router)
    app.add_exception_handler(ServiceError, problems.on_service_error)
    app.add_exception_handler(RequestValidationError, problems.on_invalid_request)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.add_middleware(websocket.Sockets)
    app.add_middleware(BodyLimitMiddleware, max_attachment_bytes=given.attachment_max_bytes)
    app.add_middleware(BackpressureMiddleware)
    app.add_middleware(
        RateLimitMiddleware
    )  # inside of CORS, which answers a preflight: a browser takes its 429 for no permission
    if given.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=given.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=ACCEPTED,
            expose_headers=EXPOSED,
        )
    app.add_middleware(RequestContextMiddleware)
    openapi.describe(app)
    return app


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class _Preparation:
    """What is done once, as soon as the database is ready: the first administrator is made."""

    def __init__(self, database: Database, users: Users, given: Settings) -> None:
        self._database = database
        self._users = users
        self._given = given
        self._said = ""

    async def done(self) -> bool:
        """Do it where the database is ready; else say once what is in the way."""
        try:
            await readiness.check(self._database)
            if self._given.admin_username:
                await self._users.ensure_admin(
                    self._database,
                    username=self._given.admin_username,
                    password=self._given.admin_password.get_secret_value(),
                )
        except ServiceError as error:
            if error.detail != self._said:
                self._said = error.detail
                logger.bind(cause=str(error.__cause__)).warning("not ready: {}", error.detail)
            return False
        logger.info("ready")
        return True

    async def wait(self) -> None:
        """Try again until it is done."""
        pause = FIRST_PAUSE_SECONDS
        await asyncio.sleep(pause)
        while not await self.done():
            pause = min(pause * 2, MAX_PAUSE_SECONDS)
            await asyncio.sleep(pause)
