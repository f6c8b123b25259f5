"""Without a NOTIFY an event arrives a second later, and a role change is seen when the listener reconnects."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from service.core.close_codes import SESSION_ENDED
from service.core.viewer import Viewer
from service.db import pool as db
from service.events.event import Event
from service.events.hub import Hub, Ready
from service.events.subscriber import Subscriber, SubscriptionEndedError
from tests.faults.test_joining import EVENT_LOG, dba, listening, make_listener, pool, soon, viewer, waiting, write
from tests.support.gates import gate
from tests.support.writers import Sql

__all__ = ["dba", "pool", "viewer"]  # fixtures
ABOUT_A_SECOND = 2.5


async def test_an_event_without_a_notify_arrives_within_about_a_second(
    own_database_url: str, pool: db.Database, dba: Sql, viewer: Viewer
) -> None:
    hub = Hub(pool, EVENT_LOG)
    subscriber = Subscriber(viewer, await EVENT_LOG.current_position(pool), float("inf"))
    with hub.subscribed(subscriber) as items:
        assert isinstance(await soon(items), Ready)
        async with listening(make_listener(own_database_url, pool, hub)):
            asked = await waiting(items, subscriber)
            first = await write(dba)
            assert isinstance(event := await asked, Event)
            assert event.id == first  # it listens
            heard: list[object] = []
            await dba.add_listener("task_events", lambda *notification: heard.append(notification))
            await dba.execute("set application_name = 'task-manager'")  # whose process would notify
            asked = await waiting(items, subscriber)
            async with asyncio.timeout(ABOUT_A_SECOND):
                second = await write(dba)
                assert isinstance(event := await asked, Event)
            assert event.id == second
            assert not heard


@pytest.mark.parametrize(
    "change", ["update users set role = 'user' where id = {}", "delete from tasks; delete from users where id = {}"]
)
async def test_a_role_changed_while_the_listener_is_disconnected_ends_its_subscriptions(
    own_database_url: str, pool: db.Database, dba: Sql, viewer: Viewer, change: str
) -> None:
    hub = Hub(pool, EVENT_LOG)
    subscriber = Subscriber(viewer, await EVENT_LOG.current_position(pool), float("inf"))
    async with gate(own_database_url) as door:
        with hub.subscribed(subscriber) as items:
            assert isinstance(await soon(items), Ready)
            async with listening(make_listener(door.url, pool, hub)):
                asked = await waiting(items, subscriber)
                written = await write(dba)
                assert isinstance(event := await asked, Event)
                assert event.id == written
                await door.shut("cut")
                await wait_for_disconnect(dba)
                await dba.execute("insert into users (username, password_hash, role) values ('root', '', 'admin')")
                await dba.execute(change.format(viewer.id))
                await door.open()
                with pytest.raises(SubscriptionEndedError) as ended:
                    _ = [await soon(items) for _ in range(2)]  # the first may be the deletion's
                assert ended.value.code == SESSION_ENDED


async def wait_for_disconnect(sql: asyncpg.Connection[asyncpg.Record]) -> None:
    """Wait until the listener's session is gone."""
    count = (
        "select count(*) from pg_stat_activity "
        "where datname = current_database() and application_name = 'task-manager listener'"
    )
    while await sql.fetchval(count):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
