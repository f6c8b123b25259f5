"""The services of one process, as requests reach them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from service.accounts.sessions import Logins
from service.accounts.users import Accounts
from service.api.connection_limits import SubscriptionLimits
from service.attachments.operations import Attachments
from service.core.concurrency import Turns
from service.core.pagination import Cursors
from service.core.redis import RedisClient
from service.db.pool import Database
from service.events.hub import Hub
from service.events.listener import Listener
from service.events.log import Feed
from service.ratelimit.login_limiter import Limits
from service.weather.client import Weather


@dataclass(frozen=True)
class Rooms:
    """What a request needs of the process; made by the lifespan."""

    db: Database
    bulk: Database
    reports: Database
    exports: Turns
    bulks: Turns
    searches: Turns
    accounts: Accounts
    logins: Logins
    cursors: Cursors
    weather: Weather
    attachments: Attachments
    limits: Limits
    subscriptions: SubscriptionLimits
    redis: RedisClient | None
    feed: Feed
    hub: Hub
    listener: Listener
    origins: tuple[str, ...]


def rooms_of(request: HTTPConnection) -> Rooms:
    """Give the rooms of the application that a request is for."""
    rooms: Rooms = request.app.state.rooms
    return rooms


async def _rooms(request: Request) -> Rooms:
    return rooms_of(request)


In: TypeAlias = Annotated[Rooms, Depends(_rooms)]
