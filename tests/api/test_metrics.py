"""What Prometheus reads of requests, statements, pools, the listener, limits and Redis."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.core.settings import Settings
from service.db.pool import profiles
from service.events.subscriber import Subscriber
from tests.conftest import make_settings
from tests.support.factories import Factory
from tests.support.measurements import MetricSamples
from tests.support.redis_server import RedisServer
from tests.support.serving import serving
from tests.support.weather import until

REQUESTS, STATEMENTS = "http_request_duration_seconds_count", "sql_statement_duration_seconds_count"


async def read_metrics(client: httpx.AsyncClient) -> MetricSamples:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    return MetricSamples(answer.text)


async def test_prometheus_reads_the_metrics_without_a_token(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert families["task_manager_http_request_duration_seconds"].type == "histogram"
    assert all(family.documentation for family in families.values())
    assert all(name.startswith("task_manager_") for name in families)
    assert not [name for name in families if name.endswith("_created")]
    assert "RateLimit" not in answer.headers


async def test_requests_count_by_their_route_and_status(make: Factory) -> None:
    ada = await make.user()
    task_id = await make.task(ada)
    before = await read_metrics(ada.client)
    for path in (f"/tasks/{task_id}", f"/tasks/{task_id}", "/tasks/9999999", "/tasks?nonsense=1", "/nowhere"):
        await ada.client.get(path)
    await ada.client.head(f"/tasks/{task_id}")
    await ada.client.request("BREW", "/tasks")
    after = await read_metrics(ada.client)

    def counted(route: str, status: str, method: str = "GET") -> float:
        labels = {"method": method, "route": route, "status": status}
        return after.of(REQUESTS, **labels) - before.of(REQUESTS, **labels)

    assert counted("/tasks/{task_id}", "200") == 2
    assert counted("/tasks/{task_id}", "200", method="HEAD") == 1
    assert counted("/tasks/{task_id}", "404") == 1
    assert counted("/tasks", "422") == 1
    assert counted("", "404") == 1
    assert counted("/tasks", "405", method="other") + counted("", "405", method="other") == 1
    assert not after.labels(REQUESTS, "method") - {
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
        "other",
    }
    assert f"/tasks/{task_id}" not in after.labels(REQUESTS, "route")


async def test_statements_count_by_their_file_and_those_that_fail_by_their_problem(make: Factory) -> None:
    ada = await make.user()
    task_id = await make.task(ada)
    account = {"username": f"{ada.username}-2", "password": "correct horse battery"}
    before = await read_metrics(ada.client)
    for _ in range(2):
        assert (await ada.client.get(f"/tasks/{task_id}")).status_code == 200
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=make.app), base_url="http://test") as stranger:
        assert [(await stranger.post("/auth/register", json=account)).status_code for _ in range(2)] == [201, 409]
    assert (await ada.client.get("/tasks/export")).status_code == 200
    assert [(await ada.client.get("/tasks?count=estimated")).status_code for _ in range(3)] == [200] * 3
    after = await read_metrics(ada.client)

    def counted(name: str, statement: str, **labels: str) -> float:
        return after.of(name, statement=statement, **labels) - before.of(name, statement=statement, **labels)

    assert counted(STATEMENTS, "tasks.get") == 2
    assert counted(STATEMENTS, "accounts.create") == 2
    assert counted(STATEMENTS, "tasks.export") == 1
    assert counted(STATEMENTS, "tasks.export (estimate)") == 3
    assert counted("sql_statement_errors_total", "accounts.create", code="conflict") == 1
    assert counted("sql_statement_errors_total", "tasks.get") == 0
    assert counted("sql_statement_duration_seconds_sum", "tasks.get") > 0


async def test_metrics_show_used_connections_and_waiting_times_of_the_pools(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings
) -> None:
    before = await read_metrics(client)
    state = app.state.services
    pools = {"requests": state.db, "reports": state.reports, "bulk": state.bulk}
    sizes = {name: profile.connections for name, profile in profiles(settings).items() if name in pools}
    async with AsyncExitStack() as lent:
        for name, size in sizes.items():  # all of them, so that no background task holds another
            for _ in range(size):
                await lent.enter_async_context(pools[name].connection())
        during = await read_metrics(client)
    for name, size in sizes.items():
        waits = [one.of("db_pool_wait_seconds_count", pool=name) for one in (before, during)]
        assert waits[1] >= waits[0] + size

    async def all_returned() -> bool:  # but what an application of another test has left in the process's metrics
        after = await read_metrics(client)
        lent_and_left = [
            {name: one.of("db_pool_connections_used", pool=name) for name in sizes} for one in (during, after)
        ]
        return all(lent_and_left[0][name] - lent_and_left[1][name] == size for name, size in sizes.items())

    await until(all_returned)
    assert during.of("db_pool_connections_max", pool="reports") == sizes["reports"] == 4


async def test_metrics_show_the_last_poll_and_the_number_of_subscribers(app: FastAPI, make: Factory) -> None:
    ada = await make.user()
    begun = time.time()
    async with asyncio.timeout(20):
        while (await read_metrics(ada.client)).of("listener_looked_timestamp_seconds") < begun:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    before = (await read_metrics(ada.client)).of("event_subscribers")
    state = app.state.services
    subscriber = Subscriber(ada.viewer, await state.event_log.current_position(state.db), float("inf"))
    with state.hub.subscribed(subscriber):
        assert (await read_metrics(ada.client)).of("event_subscribers") == before + 1
    assert (await read_metrics(ada.client)).of("event_subscribers") == before


async def test_metrics_count_refusals_by_policy(database_url: str) -> None:
    async with serving(make_settings(database_url, rate_limit_per_minute=2)) as client:
        before = await read_metrics(client)
        assert [(await client.get("/tasks")).status_code for _ in range(5)] == [401, 401, 429, 429, 429]
        after = await read_metrics(client)
    for result, number in {"admitted": 2, "refused": 3}.items():
        labels = {"policy": "requests", "result": result}
        assert after.of("rate_limit_checks_total", **labels) - before.of("rate_limit_checks_total", **labels) == number


async def test_redis_is_unavailable_until_it_returns(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.core.redis.PROBE_SECONDS", 0.05)
    with RedisServer() as server:
        async with serving(make_settings(database_url, redis_url=server.url)) as client:
            before = await read_metrics(client)
            assert before.of("redis_away") == 0
            await client.get("/readyz")
            calls = [one.of("redis_call_duration_seconds_count") for one in (before, await read_metrics(client))]
            assert calls[1] > calls[0]
            server.kill()
            await client.get("/readyz")
            assert (await read_metrics(client)).of("redis_away") == 1
            server.start()
            async with asyncio.timeout(20):
                while (await read_metrics(client)).of("redis_away"):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
