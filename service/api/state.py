"""The services of one process, and how a request reaches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from service.accounts.api_keys import ApiKeys
from service.accounts.session_cache import SessionCache
from service.accounts.sessions import Sessions
from service.accounts.tickets import Tickets
from service.accounts.users import Users
from service.api.connection_limits import SubscriptionLimits
from service.api.origins import Origins
from service.attachments.operations import Attachments
from service.core.concurrency import ConcurrencyLimiter
from service.core.pagination import Cursors
from service.core.redis import RedisClient
from service.db.pool import Database
from service.events.hub import Hub
from service.events.listener import Listener
from service.events.log import EventLog
from service.ratelimit.login_limiter import Limits
from service.weather.client import WeatherClient


@dataclass(frozen=True)
class AppState:
    """The services of one process, created by the application's lifespan.

    `db`, `bulk` and `reports` are the connection pools of requests, bulk creations and long reads. `bulks`, `exports`
    and `searches` limit how many of them run at once. `origins` are those of CORS_ORIGINS.
    """

    db: Database
    bulk: Database
    reports: Database
    exports: ConcurrencyLimiter
    bulks: ConcurrencyLimiter
    searches: ConcurrencyLimiter
    users: Users
    sessions: Sessions
    api_keys: ApiKeys
    tickets: Tickets
    session_cache: SessionCache
    cursors: Cursors
    weather: WeatherClient
    attachments: Attachments
    limits: Limits
    subscriptions: SubscriptionLimits
    redis: RedisClient | None
    event_log: EventLog
    hub: Hub
    listener: Listener
    origins: Origins


SERVICES = "service.state"
"""Where the pipeline puts the state into a request's scope."""


def state_of(request: HTTPConnection) -> AppState:
    """Return the state of the application that handles a request."""
    state: AppState = request.scope[SERVICES]
    return state


def _state(request: Request) -> AppState:
    return state_of(request)


State: TypeAlias = Annotated[AppState, Depends(_state)]
"""The state of the application, as a parameter of a route."""
