"""Requests to OpenWeather over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import aiohttp
import orjson
from loguru import logger
from pydantic import BaseModel, Field

from service.core.settings import Settings
from service.core.validation import Text
from service.weather.cache import NO_SUCH_CITY
from service.weather.circuit_breaker import WeatherUnavailableError

MAX_RESPONSE_BYTES = 64 * 1024
NO_SUCH_CITY_STATUSES = (400, 404)  # the provider answers 400 to a text in which it sees no place


class _Condition(BaseModel):
    main: Annotated[Text, Field(min_length=1, max_length=100)]


class _Main(BaseModel):
    temp: Annotated[float, Field(ge=-150, le=150, allow_inf_nan=False)]
    humidity: Annotated[float | None, Field(ge=0, le=100, allow_inf_nan=False)] = None


class _Wind(BaseModel):
    speed: Annotated[float | None, Field(ge=0, le=1000, allow_inf_nan=False)] = None


class _Answer(BaseModel):
    """The members of the provider's answer that the service reads."""

    weather: Annotated[list[_Condition], Field(min_length=1)]
    main: _Main
    wind: _Wind = _Wind()
    dt: Annotated[int | None, Field(ge=0, le=2**33)] = None

    def as_weather(self) -> bytes:
        """Return the JSON that a task stores, in °C, % and m/s."""
        return orjson.dumps(
            {
                "temperature": self.main.temp,
                "condition": self.weather[0].main,
                "humidity": self.main.humidity,
                "wind_speed": self.wind.speed,
                "observed_at": None if self.dt is None else datetime.fromtimestamp(self.dt, UTC),
            },
            option=orjson.OPT_UTC_Z,
        )


class Provider:
    """OpenWeather's API, with one HTTP session."""

    def __init__(self, settings: Settings, *, session: aiohttp.ClientSession) -> None:
        self._url = f"{settings.openweather_url.rstrip('/')}/data/2.5/weather"
        self._api_key = settings.openweather_api_key.get_secret_value()
        self._session = session

    async def request(self, city: str, *, seconds: float) -> bytes:
        """Send one request, and return the weather as JSON, or NO_SUCH_CITY.

        Raises WeatherUnavailableError, without the text of its cause, which holds the URL with the API key.
        """
        try:
            async with self._session.get(
                self._url,
                params={"q": city, "units": "metric", "appid": self._api_key},
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=max(0.001, seconds)),
            ) as response:
                if response.status in NO_SUCH_CITY_STATUSES:
                    return NO_SUCH_CITY
                if response.status in {401, 403}:
                    logger.bind(status=response.status, setting="OPENWEATHER_API_KEY").warning("weather key refused")
                if response.status != 200:
                    raise WeatherUnavailableError(f"status {response.status}")
                return _Answer.model_validate_json(await _body(response)).as_weather()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise WeatherUnavailableError(type(error).__name__) from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise WeatherUnavailableError("too large")
    return bytes(body)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Provider]:
    """Open the provider's HTTP session, and close it at the end."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        yield Provider(settings, session=session)
