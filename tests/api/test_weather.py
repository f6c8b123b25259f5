"""A task has its weather in the answer that makes it; whatever the provider does, it never has to wait for it long."""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from service.core import metrics
from service.weather import backfill, circuit_breaker
from service.weather import client as weather
from service.weather.cache import City, WeatherCache
from service.weather.circuit_breaker import WeatherUnavailableError
from service.weather.client import WeatherClient
from tests.support.factories import User
from tests.support.measurements import MetricSamples
from tests.support.provider import (
    FAILING,
    INCOMPLETE,
    KEY,
    NO_CITY,
    UNUSABLE,
    WORKING,
    Provider,
    serving_proxy,
    temperature,
)
from tests.support.redis_server import RedisServer
from tests.support.weather import BUDGET, MARGIN, Forecaster, Start, until


@pytest.fixture(autouse=True)
def _no_backfill(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every call is a request's own."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(backfill, "run", never)


async def create(user: User, city: str | None = "Moscow") -> dict[str, Any]:
    answer = await user.client.post("/tasks", json={"title": "x", "city": city})
    assert answer.status_code == 201
    task: dict[str, Any] = answer.json()
    return task


async def fetch(client: WeatherClient, city: str) -> Any:
    """Return the weather of a city as decoded JSON, or a marker text if the provider is unavailable."""
    try:
        return orjson.loads(orjson.dumps(await client.fetch(city)))
    except WeatherUnavailableError:
        return "away"


async def test_a_task_has_its_weather_in_the_answer_that_makes_it(start: Start) -> None:
    async with start() as make:
        ada = await make.user()
        task = await create(ada)
        assert task["weather"] == {
            "temperature": temperature("Moscow"),
            "condition": "Clouds",
            "humidity": 81,
            "wind_speed": 4.1,
            "observed_at": "2025-05-24T14:35:00Z",
        }
        assert (await ada.client.get(f"/tasks/{task['id']}")).json() == task
        assert task["version"] == 1


@pytest.mark.parametrize("mode", [*FAILING, *NO_CITY])
async def test_a_failing_provider_leaves_a_task_without_weather_and_causes_no_other_failure(
    start: Start, provider: Provider, json_log: list[str], caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    provider.mode = mode
    async with start(weather_timeout_seconds=BUDGET) as make:
        ada = await make.user()
        began = time.monotonic()
        answer = await ada.client.post("/tasks", json={"title": "x", "city": "Moscow"})
        assert time.monotonic() - began < BUDGET + MARGIN
    assert (answer.status_code, answer.json()["weather"]) == (201, None)
    # A connection that is closed without a word may have been an old one, so the HTTP client asks once more.
    assert len(provider.calls) == (2 if mode == "closes at once" else 1)
    assert KEY not in "".join([*json_log, caplog.text, answer.text, *answer.headers.values()])
    assert not [line for line in json_log if orjson.loads(line)["record"]["level"]["no"] >= 40]
    assert not [record for record in caplog.records if record.levelno >= 40]


@pytest.mark.parametrize("mode", FAILING)
async def test_a_failure_does_not_reveal_the_api_key(forecaster: Forecaster, provider: Provider, mode: str) -> None:
    provider.mode = mode
    async with forecaster(weather_timeout_seconds=BUDGET) as client:
        with pytest.raises(WeatherUnavailableError) as failure:
            await client.fetch("Moscow")
    assert KEY not in "".join(traceback.format_exception(failure.value))


async def test_a_hundred_at_once_make_one_call_and_wait_no_longer_than_the_budget(
    start: Start, provider: Provider
) -> None:
    provider.mode = "hangs"
    budget = 2.0  # in which all hundred have to come
    async with start(weather_timeout_seconds=budget) as make:
        ada = await make.user()
        began = time.monotonic()
        tasks = await asyncio.gather(*(create(ada, city) for city in ["Moscow", " moscow", "MOSCOW  ", "Moscow"] * 25))
        assert time.monotonic() - began < budget + MARGIN
    assert [task["weather"] for task in tasks] == [None] * 100
    assert len(provider.calls) == 1


async def test_a_hundred_cities_at_once_wait_no_longer_than_the_budget(
    forecaster: Forecaster, provider: Provider
) -> None:
    provider.mode = "hangs"
    async with forecaster(weather_timeout_seconds=BUDGET) as client:
        began = time.monotonic()
        found = await asyncio.gather(*(fetch(client, f"City {number}") for number in range(100)))
        assert time.monotonic() - began < BUDGET + MARGIN
    assert found == ["away"] * 100
    assert weather.MAX_CALLS <= len(provider.calls) < weather.MAX_CALLS + circuit_breaker.FAILURES


async def test_waiting_for_a_free_call_is_no_failure_of_the_provider(
    forecaster: Forecaster, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weather, "MAX_CALLS", 1)
    provider.mode = "late"
    async with forecaster(weather_timeout_seconds=0.5) as client:
        found = await asyncio.gather(*(fetch(client, f"City {number}") for number in range(20)))
        assert found.count("away") >= 10
        assert client.available


@pytest.mark.parametrize(
    "spellings",
    [
        ["Moscow", "moscow", " MOSCOW ", "\tMoscow\n"],
        ["New York", "new  york", "New\u00a0York"],
        ["Malmö", "Malmo\u0308", "MALMÖ"],
        ["Straße", "STRASSE"],
        ["Kyōto", "\N{FULLWIDTH LATIN CAPITAL LETTER K}yo\u0304to"],
    ],
)
async def test_spellings_of_one_city_share_a_call(
    forecaster: Forecaster, provider: Provider, spellings: list[str]
) -> None:
    async with forecaster() as client:
        found = [await fetch(client, city) for city in spellings]
    assert provider.cities == [spellings[0].strip()]
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize(
    "city",
    [
        "a&appid=x",
        "?",
        "#",
        "../../x",
        "a b+c",
        "%26",
        "a\r\nX-A: b",
        "{x};=",
        "\N{GRINNING FACE}",
        "я" * 100,
        " Oslo \t",
    ],
)
async def test_a_city_travels_as_a_query_value_only(start: Start, provider: Provider, city: str) -> None:
    async with start() as make:
        task = await create(await make.user(), city)
    assert provider.calls == [[("q", city.strip()), ("units", "metric"), ("appid", KEY)]]
    assert task["city"] == city
    assert task["weather"]["temperature"] == temperature(city.strip())


@pytest.mark.parametrize("city", [None, "", " \t\n"])
async def test_without_a_city_there_is_no_call(start: Start, provider: Provider, city: str | None) -> None:
    async with start() as make:
        assert (await create(await make.user(), city))["weather"] is None
    assert provider.calls == []


async def test_without_an_api_key_no_call_is_made_and_this_is_logged_once(
    start: Start, provider: Provider, json_log: list[str]
) -> None:
    async with start(openweather_api_key="") as make:
        ada = await make.user()
        assert [(await create(ada))["weather"] for _ in range(3)] == [None] * 3
        assert not make.app.state.services.weather.available
    assert provider.calls == []
    assert len([line for line in json_log if "OPENWEATHER_API_KEY is empty" in line]) == 1


@pytest.mark.parametrize("mode", ["ok", *NO_CITY])
async def test_cached_weather_is_not_requested_again(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str, mode: str
) -> None:
    provider.mode = mode
    for number, url in enumerate(["", redis_url]):
        assert await redis.exists("weather:of:moscow") == 0
        async with forecaster(redis_url=url) as client:
            first, second = await fetch(client, "Moscow"), await fetch(client, "Moscow")
        assert first == second != "away"
        assert len(provider.calls) == number + 1
    assert await redis.exists("weather:of:moscow" if mode == "ok" else "weather:none:Moscow") == 1


@pytest.mark.parametrize(
    "case", [("ok", 3600, 3600), ("ok", 100, 100), ("no such city", 3600, 300), ("no such city", 60, 60)]
)
async def test_an_answer_is_kept_as_long_as_the_settings_say(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str, case: tuple[str, int, int]
) -> None:
    provider.mode, seconds, kept = case
    async with forecaster(redis_url=redis_url, weather_cache_seconds=seconds) as client:
        await fetch(client, "Moscow")
    name = "weather:of:moscow" if provider.mode == "ok" else "weather:none:Moscow"
    assert kept - 20 < await redis.ttl(name) <= kept


async def test_in_the_process_an_answer_is_kept_as_long_as_the_settings_say(
    forecaster: Forecaster, provider: Provider
) -> None:
    async with forecaster(weather_cache_seconds=1) as client:

        async def asked_again() -> bool:
            await client.fetch("Moscow")
            return len(provider.calls) == 2

        began = time.monotonic()
        await until(asked_again)
        assert time.monotonic() - began >= 1


async def test_failures_are_not_kept(forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str) -> None:
    provider.mode = "fails"
    async with forecaster(redis_url=redis_url) as client:
        assert [await fetch(client, "Moscow") for _ in range(2)] == ["away"] * 2
        assert await redis.keys("weather:*") == []
        provider.mode = "ok"
        assert (await fetch(client, "Moscow"))["condition"] == "Clouds"
    assert len(provider.calls) == 3


async def test_nothing_is_cached_if_the_cache_is_disabled(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str
) -> None:
    provider.mode = "late"
    async with (
        forecaster(redis_url=redis_url, weather_cache_seconds=0) as one,
        forecaster(redis_url=redis_url, weather_cache_seconds=0) as two,
    ):
        found = await asyncio.gather(fetch(one, "Moscow"), fetch(two, "Moscow"))
        assert [weather["condition"] for weather in [*found, await fetch(one, "Moscow")]] == ["Clouds"] * 3
    assert len(provider.calls) == 3
    assert await redis.keys("weather:*") == []


async def test_with_redis_killed_the_process_serves_what_it_found(
    forecaster: Forecaster, provider: Provider, json_log: list[str]
) -> None:
    with RedisServer() as server:
        async with forecaster(redis_url=server.url, weather_timeout_seconds=20) as client:
            first = await fetch(client, "Moscow")
            server.kill()
            assert await fetch(client, "Moscow") == first
            assert (await fetch(client, "Paris"))["temperature"] == temperature("Paris")
            assert (await fetch(client, "Paris"))["temperature"] == temperature("Paris")
    assert provider.cities == ["Moscow", "Paris"]
    assert len([line for line in json_log if "redis disconnected" in line]) == 1


async def test_a_lost_city_lock_does_not_mark_redis_unavailable(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str, json_log: list[str]
) -> None:
    provider.mode = "held"
    async with forecaster(redis_url=redis_url, weather_timeout_seconds=20) as client:
        flight = asyncio.create_task(fetch(client, "Moscow"))
        await until(lambda: redis.exists("weather:turn:moscow"))
        await redis.flushdb()
        provider.released.set()
        assert (await flight)["condition"] == "Clouds"
    assert not [line for line in json_log if "redis disconnected" in line]


async def test_a_citys_name_does_not_reach_into_anothers_keys(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str
) -> None:
    async with forecaster(redis_url=redis_url) as client:
        for city in ("turn:Moscow", "of:Moscow", "Moscow"):
            assert (await fetch(client, city))["temperature"] == temperature(city)


async def test_two_applications_asked_at_once_make_one_call(
    start: Start, provider: Provider, redis: Redis, redis_url: str
) -> None:
    provider.mode = "late"
    async with (
        start(redis_url=redis_url, weather_timeout_seconds=10) as one,
        start(redis_url=redis_url, weather_timeout_seconds=10) as two,
    ):
        ada, bob = await one.user(), await two.user()
        tasks = await asyncio.gather(*(create(user) for user in [ada, bob] * 5))
    assert [task["weather"]["temperature"] for task in tasks] == [temperature("Moscow")] * 10
    assert len(provider.calls) == 1


async def test_a_crashed_holder_of_the_city_lock_does_not_block_others_for_long(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str
) -> None:
    await redis.set("weather:turn:moscow", "a process that is no more", px=1000)
    async with forecaster(redis_url=redis_url, weather_timeout_seconds=BUDGET) as client:
        began = time.monotonic()
        assert await fetch(client, "Moscow") == "away"
        assert time.monotonic() - began < BUDGET + MARGIN
        assert provider.calls == []
        assert client.available

        async def found() -> bool:
            return bool(await fetch(client, "Moscow") != "away")

        await until(found)


async def test_a_city_lock_expires(forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str) -> None:
    provider.mode = "hangs"
    async with forecaster(redis_url=redis_url, weather_timeout_seconds=10) as client:
        flight = asyncio.create_task(fetch(client, "Moscow"))
        await until(lambda: redis.exists("weather:turn:moscow"))
        assert 0 < await redis.pttl("weather:turn:moscow") <= 11_000
        await client.close()
        assert await redis.exists("weather:turn:moscow") == 0
    with pytest.raises(asyncio.CancelledError):
        await flight


async def test_a_waiting_caller_that_leaves_does_not_cancel_the_shared_call(
    forecaster: Forecaster, provider: Provider
) -> None:
    provider.mode = "held"
    async with forecaster(weather_timeout_seconds=20) as client:
        first, second = (asyncio.create_task(fetch(client, "Moscow")) for _ in range(2))

        async def asked() -> bool:
            return bool(provider.calls)

        await until(asked)
        first.cancel()
        provider.released.set()
        assert (await second)["condition"] == "Clouds"
    assert len(provider.calls) == 1


async def test_metrics_count_cache_hits_misses_and_request_outcomes(forecaster: Forecaster, provider: Provider) -> None:
    before = MetricSamples(metrics.text().decode())
    async with forecaster() as client:
        for city in ("Moscow", "Moscow"):
            await fetch(client, city)
        provider.mode = "no such city"
        assert await fetch(client, "Nowhere") is None
        provider.mode = "fails"
        for number in range(circuit_breaker.FAILURES):
            assert await fetch(client, f"City {number}") == "away"
    after = MetricSamples(metrics.text().decode())

    def counted(name: str, result: str) -> float:
        return after.of(name, result=result) - before.of(name, result=result)

    lookups = {result: counted("weather_cache_lookups_total", result) for result in ("hit", "miss")}
    assert lookups == {"hit": 1, "miss": 2 + circuit_breaker.FAILURES}
    results = ("found", "none", "failed")
    requests = {result: counted("weather_request_duration_seconds_count", result) for result in results}
    assert requests == {"found": 1, "none": 1, "failed": circuit_breaker.FAILURES}


async def test_the_breaker_stops_calls_and_tries_again_one_at_a_time(
    forecaster: Forecaster, provider: Provider, json_log: list[str]
) -> None:
    provider.mode = "fails"
    async with forecaster(weather_timeout_seconds=BUDGET) as client:
        breaker = client._circuit._provider
        for number in range(circuit_breaker.FAILURES + 3):
            assert client.available is (number < circuit_breaker.FAILURES)
            assert await fetch(client, f"City {number}") == "away"
        assert len(provider.calls) == circuit_breaker.FAILURES
        assert MetricSamples(metrics.text().decode()).of("weather_circuit_open") == 1

        breaker._recovery_timeout = 0  # as if the time were over
        assert client.available
        provider.mode = "held"
        opened_at = breaker._opened
        trial = asyncio.create_task(fetch(client, "City 0"))

        async def tried() -> bool:
            return len(provider.calls) == circuit_breaker.FAILURES + 1

        await until(tried)
        assert await fetch(client, "Paris") == "away"
        assert await tried()
        breaker._recovery_timeout = 3600
        assert await trial == "away"
        assert breaker._opened > opened_at  # once more, although that city was counted

        breaker._recovery_timeout = 0
        provider.mode = "ok"
        assert (await fetch(client, "Moscow"))["condition"] == "Clouds"
        assert breaker.closed
        assert MetricSamples(metrics.text().decode()).of("weather_circuit_open") == 0
    changes = [orjson.loads(line)["record"]["extra"]["state"] for line in json_log if "weather circuit changed" in line]
    assert changes == ["open", "closed"]


def asks(client: WeatherClient) -> bool:
    return client.available


async def test_a_city_at_which_the_provider_fails_does_not_affect_other_cities(
    forecaster: Forecaster, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "RECOVERY_SECONDS", 0.05)
    provider.modes["Atlantis"] = "fails"
    async with forecaster(weather_cache_seconds=0) as client:
        for number in range(3 * circuit_breaker.FAILURES):
            assert await fetch(client, "Atlantis") == "away"
            assert client.available
            if number == circuit_breaker.FAILURES:
                assert (await fetch(client, "Moscow"))["condition"] == "Clouds"
        assert provider.cities.count("Atlantis") < 3 * circuit_breaker.FAILURES  # it is left alone itself
        del provider.modes["Atlantis"]

        async def found() -> bool:
            return bool(await fetch(client, "Atlantis") != "away")

        await until(found)


async def test_a_success_ends_the_count_of_cities_that_failed(forecaster: Forecaster, provider: Provider) -> None:
    provider.mode = "fails"
    provider.modes["Moscow"] = "ok"
    cities = [f"City {number}" for number in range(circuit_breaker.FAILURES)]
    async with forecaster(weather_cache_seconds=0) as client:
        for _ in range(2):
            assert [await fetch(client, city) for city in cities[1:]] == ["away"] * (circuit_breaker.FAILURES - 1)
            assert asks(client)
            assert await fetch(client, "Moscow") != "away"
        assert [await fetch(client, city) for city in cities] == ["away"] * circuit_breaker.FAILURES
        assert not asks(client)


async def test_a_cancelled_lookup_does_not_count_as_a_provider_failure(
    forecaster: Forecaster, provider: Provider
) -> None:
    provider.mode = "fails"
    provider.modes["Moscow"] = "held"

    async def cancelled(client: WeatherClient) -> None:
        count = len(provider.calls)
        flight = asyncio.create_task(fetch(client, "Moscow"))

        async def asked() -> bool:
            return len(provider.calls) > count

        await until(asked)
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await flight

    async with forecaster(weather_timeout_seconds=20) as client:
        for number in range(circuit_breaker.FAILURES - 1):
            assert await fetch(client, f"City {number}") == "away"
        await cancelled(client)
        assert asks(client)
        assert await fetch(client, "Paris") == "away"
        assert not asks(client)

        client._circuit._provider._recovery_timeout = 0  # as if the time were over
        await cancelled(client)
        client._circuit._provider._recovery_timeout = 3600
        assert not asks(client)
        client._circuit._provider._recovery_timeout = 0
        provider.mode = "ok"
        assert (await fetch(client, "Berlin"))["condition"] == "Clouds"


ODD = "\N{FULLWIDTH LATIN CAPITAL LETTER P}aris"


@pytest.mark.parametrize("how", ["redis together", "process together", "redis in turn", "process in turn"])
async def test_a_spelling_that_the_provider_does_not_know_hides_no_other(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str, how: str
) -> None:
    provider.mode = "late"
    provider.modes = {ODD: "no such city", f"{ODD}!": "no such city"}
    url = redis_url if "redis" in how else ""
    async with forecaster(redis_url=url, weather_timeout_seconds=10) as client:
        if "together" in how:
            found = await asyncio.gather(*(fetch(client, city) for city in (ODD, "Paris", f" {ODD} ", "paris")))
        else:
            found = [await fetch(client, city) for city in (ODD, f" {ODD} ", "Paris", "paris")]
            found = [found[0], found[2], found[1], found[3]]
        assert (found[0], found[2]) == (None, None)
        assert found[1] == found[3]
        assert found[1]["condition"] == "Clouds"
        assert provider.cities == [ODD, "Paris"]
        assert [await fetch(client, f"{ODD}!") for _ in range(2)] == [None] * 2
    assert provider.cities == [ODD, "Paris", f"{ODD}!"]


async def test_a_replica_does_not_wait_for_one_that_found_nothing(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    get = WeatherCache.get_with_lock

    async def counted(self: WeatherCache, city: City) -> tuple[bytes | None, bool]:
        nonlocal reads
        reads += 1
        return await get(self, city)

    async def waits() -> bool:
        return reads >= 4

    monkeypatch.setattr(WeatherCache, "get_with_lock", counted)
    await redis.set("weather:turn:moscow", "another replica", px=60_000)
    async with forecaster(redis_url=redis_url, weather_timeout_seconds=60) as client:
        flight = asyncio.create_task(fetch(client, "Moscow"))
        await until(waits)
        assert not flight.done()
        await redis.delete("weather:turn:moscow")
        async with asyncio.timeout(10):
            assert await flight == "away"
        assert client.available
    assert provider.calls == []


async def test_a_city_that_does_not_exist_does_not_open_the_circuit(forecaster: Forecaster, provider: Provider) -> None:
    async with forecaster() as client:
        for number, mode in enumerate([*NO_CITY] * circuit_breaker.FAILURES):
            provider.mode = mode
            assert await fetch(client, f"City {number}") is None
        assert client.available


@pytest.mark.parametrize("mode", WORKING)
async def test_an_answer_in_another_coding_is_read(forecaster: Forecaster, provider: Provider, mode: str) -> None:
    provider.mode = mode
    async with forecaster() as client:
        assert (await fetch(client, "Moscow"))["temperature"] == temperature("Moscow")


@pytest.mark.parametrize("mode", INCOMPLETE)
async def test_a_part_that_is_missing_or_invalid_is_null(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str, mode: str
) -> None:
    provider.mode = mode
    async with forecaster(redis_url=redis_url) as client:
        found = [await fetch(client, "Moscow") for _ in range(2)]  # the second one is from the cache
    assert {name for name, value in found[0].items() if value is None} == INCOMPLETE[mode][1]
    assert found[0] == found[1]
    assert provider.cities == ["Moscow"]


async def test_unusable_answers_open_the_circuit_of_their_city_alone(
    forecaster: Forecaster, provider: Provider
) -> None:
    async with forecaster() as client:
        for number, mode in enumerate([*UNUSABLE] * 2):
            provider.mode = mode
            assert await fetch(client, f"City {number}") == "away"
        assert client.available
        calls = len(provider.calls)
        for _ in range(circuit_breaker.FAILURES + 2):
            assert await fetch(client, "City 0") == "away"
        assert len(provider.calls) - calls == circuit_breaker.FAILURES - 1
        provider.mode = "ok"
        assert (await fetch(client, "Paris"))["condition"] == "Clouds"


@pytest.mark.parametrize(
    ("mode", "logged"),
    [
        ("is another server's 404", {"status": 404, "body": "<h1>Not Found</h1>"}),
        ("redirects", {"status": 302, "location": "/data/2.5/weather", "body": "302: Found"}),
        ("has no member", {"status": 200, "body": "{}"}),
    ],
)
async def test_an_unexpected_answer_is_logged_once_until_an_expected_one(
    forecaster: Forecaster, provider: Provider, json_log: list[str], mode: str, logged: dict[str, Any]
) -> None:
    async with forecaster() as client:
        for city in ("Moscow", "Paris", "Berlin", "Rome"):
            provider.mode = "ok" if city == "Berlin" else mode
            await fetch(client, city)
    records = [orjson.loads(line)["record"] for line in json_log]
    assert [one["extra"] for one in records if one["message"] == "weather answer unexpected"] == [logged, logged]
    assert KEY not in "".join(json_log)


async def test_a_provider_that_knows_no_city_is_reported_once(
    forecaster: Forecaster, provider: Provider, json_log: list[str]
) -> None:
    provider.mode = "no such city"
    async with forecaster() as client:
        for number in range(12):
            assert await fetch(client, f"City {number}") is None
    messages = [orjson.loads(line)["record"]["message"] for line in json_log]
    assert messages.count("weather provider knows no city") == 1


async def test_the_proxy_of_the_environment_is_used(
    forecaster: Forecaster, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_proxy() as (proxy_url, targets), forecaster(openweather_url="http://weather.example") as client:
        monkeypatch.setenv("HTTP_PROXY", proxy_url)
        assert (await fetch(client, "Moscow"))["condition"] == "Clouds"
        monkeypatch.setenv("NO_PROXY", "weather.example")
        assert await fetch(client, "Paris") == "away"
    assert targets == ["http://weather.example/data/2.5/weather"]
    assert provider.calls == []


@pytest.mark.parametrize("method", ["put", "patch"])
async def test_another_city_has_another_weather_at_once(start: Start, provider: Provider, method: str) -> None:
    async with start() as make:
        ada = await make.user()
        task = await create(ada)
        answer = await ada.client.request(method, f"/tasks/{task['id']}", json={"title": "x", "city": "Paris"})
    after = answer.json()
    assert (after["city"], after["weather"]["temperature"], after["version"]) == ("Paris", temperature("Paris"), 2)
    assert provider.cities == ["Moscow", "Paris"]


@pytest.mark.parametrize("method", ["put", "patch"])
async def test_another_city_without_weather_does_not_keep_the_old_ones(
    start: Start, provider: Provider, method: str
) -> None:
    async with start() as make:
        ada = await make.user()
        task = await create(ada)
        provider.mode = "fails"
        answer = await ada.client.request(method, f"/tasks/{task['id']}", json={"title": "x", "city": "Paris"})
    after = answer.json()
    assert (after["city"], after["weather"], after["version"]) == ("Paris", None, 2)


async def test_a_change_of_another_field_calls_no_provider(start: Start, provider: Provider) -> None:
    async with start(weather_cache_seconds=0) as make:
        ada = await make.user()
        task = await create(ada)
        after = (await ada.client.patch(f"/tasks/{task['id']}", json={"title": "y"})).json()
    assert after["weather"] == task["weather"]
    assert provider.cities == ["Moscow"]


@pytest.mark.parametrize("method", ["put", "patch"])
async def test_the_same_city_again_changes_nothing_and_calls_no_provider(
    start: Start, provider: Provider, method: str
) -> None:
    async with start(weather_cache_seconds=0) as make:
        ada = await make.user()
        task = await create(ada)
        answer = await ada.client.request(method, f"/tasks/{task['id']}", json={"title": "x", "city": "Moscow"})
    assert answer.json() == task
    assert provider.cities == ["Moscow"]


@pytest.mark.parametrize("method", ["put", "patch"])
async def test_a_forbidden_change_calls_no_provider(start: Start, provider: Provider, method: str) -> None:
    async with start() as make:
        ada, eve = await make.user(), await make.user()
        task_id = await make.task(ada)
        for path, status in ((f"/tasks/{task_id}", 403), (f"/tasks/{task_id + 1}", 404)):
            answer = await eve.client.request(method, path, json={"title": "x", "city": "Moscow"})
            assert answer.status_code == status
    assert provider.cities == []


async def test_clearing_a_city_clears_its_weather(start: Start, provider: Provider) -> None:
    async with start() as make:
        ada = await make.user()
        task = await create(ada)
        after = (await ada.client.patch(f"/tasks/{task['id']}", json={"city": None})).json()
    assert (after["city"], after["weather"], after["version"]) == (None, None, 2)
    assert provider.cities == ["Moscow"]


async def test_server_timing_shows_the_lookup(start: Start) -> None:
    async with start() as make:
        ada = await make.user()
        answer = await ada.client.post("/tasks", json={"title": "x", "city": "Moscow"})
    assert "weather;dur=" in answer.headers["Server-Timing"]


@pytest.mark.parametrize("respelled", ["moscow", " MOSCOW ", "Mos  cow", "Moscow,RU"])
async def test_a_city_respelled_keeps_its_weather(start: Start, provider: Provider, respelled: str) -> None:
    async with start() as make:
        ada = await make.user()
        task = await create(ada)
        provider.mode = "ok"
        after = (await ada.client.patch(f"/tasks/{task['id']}", json={"city": respelled})).json()
    assert after["weather"]["condition"] == task["weather"]["condition"]
    assert after["version"] == 2


async def test_a_city_respelled_while_the_provider_is_unavailable_keeps_its_weather(
    start: Start, provider: Provider
) -> None:
    async with start(weather_cache_seconds=0) as make:
        ada = await make.user()
        task = await create(ada)
        provider.mode = "fails"
        after = (await ada.client.patch(f"/tasks/{task['id']}", json={"city": "moscow"})).json()
        gone = (await ada.client.patch(f"/tasks/{task['id']}", json={"city": "Oslo"})).json()
    assert (after["city"], after["weather"], after["version"]) == ("moscow", task["weather"], 2)
    assert (gone["city"], gone["weather"], gone["version"]) == ("Oslo", None, 3)


@pytest.mark.parametrize(
    "garbage", ["garbage", "1", "[]", "", '{"temperature": "x", "condition": "y"}', '{"temperature": 1}']
)
async def test_foreign_cache_content_is_not_used_as_weather(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str, garbage: str
) -> None:
    await redis.set("weather:of:moscow", garbage)
    async with forecaster(redis_url=redis_url) as client:
        assert (await fetch(client, "Moscow"))["condition"] == "Clouds"
    assert len(provider.calls) == 1


async def test_a_key_of_another_kind_is_no_outage(
    forecaster: Forecaster, provider: Provider, redis: Redis, redis_url: str, json_log: list[str]
) -> None:
    await redis.rpush("weather:of:moscow", "x")
    async with forecaster(redis_url=redis_url) as client:
        assert (await fetch(client, "Moscow"))["condition"] == "Clouds"
    assert not [line for line in json_log if "redis disconnected" in line]
