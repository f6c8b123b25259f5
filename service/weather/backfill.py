"""Adds weather to the tasks that lack it; the tasks table shows which, so the work survives restarts.

A city that the provider does not know is due again after a day.
"""

from __future__ import annotations

import asyncio
import random

from loguru import logger

from service.core.background import run_every
from service.db.pool import Executor
from service.db.queries import q
from service.weather.circuit_breaker import WeatherUnavailableError
from service.weather.client import CITIES_AT_ONCE, WeatherClient

PAUSE_SECONDS = 5.0
RETRY_SECONDS = 20.0
CLAIM_ROWS = 100
FILL_ROWS = 1000


async def run(db: Executor, weather: WeatherClient) -> None:
    """Add missing weather again and again until cancelled; a city without an answer is due again later."""

    async def fill() -> None:
        while weather.available and await fill_batch(db, weather):
            pass

    await run_every(PAUSE_SECONDS, fill, name="weather backfill", at_once=True)


async def fill_batch(db: Executor, weather: WeatherClient) -> bool:
    """Claim some tasks without weather, fetch it by city and store it; return whether more tasks may be due."""
    rows = await q.weather.claim(db, seconds=RETRY_SECONDS, row_limit=CLAIM_ROWS)
    cities = {city for row in rows if (city := row["city"]) is not None}
    slots = asyncio.Semaphore(CITIES_AT_ONCE)
    # In sorted order the same failing cities could come first each time and open the circuit for the others.
    shuffled = random.sample(sorted(cities), len(cities))
    results = await asyncio.gather(*(_fill(db, weather, city, slots) for city in shuffled), return_exceptions=True)
    if errors := [result for result in results if result is not None]:
        raise errors[0]
    return len(rows) == CLAIM_ROWS


async def _fill(db: Executor, weather: WeatherClient, city: str, slots: asyncio.Semaphore) -> None:
    try:
        async with slots:
            fragment = await weather.fetch(city)
    except WeatherUnavailableError:
        return
    filled = FILL_ROWS
    while filled == FILL_ROWS:
        filled = await q.weather.fill(db, city=city, weather=fragment, row_limit=FILL_ROWS)
        logger.bind(city=city, tasks=filled).info("weather added" if fragment else "city unknown")
