"""Fills in the weather that tasks miss: what is missing is found in the table, so that it survives restarts."""

from __future__ import annotations

import asyncio
import random

from loguru import logger

from service.core.errors import ServiceError
from service.db.pool import Executor
from service.db.queries import q
from service.weather.circuit_breaker import WeatherUnavailableError
from service.weather.client import CITIES_AT_ONCE, Weather

PAUSE_SECONDS = 5.0
RETRY_SECONDS = 20.0
CLAIM_ROWS = 100
FILL_ROWS = 1000


async def run(db: Executor, weather: Weather) -> None:
    """Fill in until cancelled; what fails is due again later."""
    while True:
        try:
            while weather.available and await once(db, weather):
                pass
        except ServiceError as error:
            logger.bind(cause=repr(error.__cause__)).warning("weather: cannot fill in: {}", error.detail)
        except Exception:  # a defect of one round does not end all others
            logger.exception("weather: cannot fill in")
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - so that replicas do not march in step


async def once(db: Executor, weather: Weather) -> bool:
    """Claim some cities whose weather is missing, look them up, fill in what is found; whether there may be more."""
    rows = await q.weather.claim(db, seconds=RETRY_SECONDS, row_limit=CLAIM_ROWS)
    cities = {city for row in rows if (city := row["city"]) is not None}
    turns = asyncio.Semaphore(CITIES_AT_ONCE)
    # Shuffled: else cities at which the provider fails might come first each time, and open the circuit for the others.
    shuffled = random.sample(sorted(cities), len(cities))
    ends = await asyncio.gather(*(_fill(db, weather, city, turns) for city in shuffled), return_exceptions=True)
    if failures := [end for end in ends if end is not None]:
        raise failures[0]
    return len(rows) == CLAIM_ROWS


async def _fill(db: Executor, weather: Weather, city: str, turns: asyncio.Semaphore) -> None:
    try:
        async with turns:
            found = await weather.look_up(city)
    except WeatherUnavailableError:
        return
    filled = FILL_ROWS
    while filled == FILL_ROWS:
        filled = await q.weather.fill(db, city=city, weather=found, row_limit=FILL_ROWS)
        logger.bind(city=city, tasks=filled).info("weather filled in")
