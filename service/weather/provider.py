"""Requests to OpenWeather over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import aiohttp
import orjson
from loguru import logger
from pydantic import BaseModel, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from service.core.settings import Settings
from service.core.validation import Text
from service.weather.cache import NO_SUCH_CITY
from service.weather.circuit_breaker import UnusableAnswerError, WeatherUnavailableError

MAX_RESPONSE_BYTES = 64 * 1024
MAX_LOGGED_CHARACTERS = 100
SUSPICIOUS_CITIES = 10  # unknown ones in a row, without one that is known
# The provider's own words, by `cod` of its body. With a wrong URL it or another server also returns 404.
NO_SUCH_CITY_MESSAGES = {"404": "city not found", "400": "nothing to geocode"}


def _null_if_invalid(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


NULL_IF_INVALID = WrapValidator(_null_if_invalid)
"""Makes a part of the answer null if it is not as documented, so that the others stay usable."""


class _Condition(BaseModel):
    main: Annotated[Annotated[Text, Field(min_length=1, max_length=100)] | None, NULL_IF_INVALID] = None


class _Main(BaseModel):
    temp: Annotated[float, Field(ge=-150, le=150, allow_inf_nan=False)]
    humidity: Annotated[Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None, NULL_IF_INVALID] = None


class _Wind(BaseModel):
    speed: Annotated[Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None, NULL_IF_INVALID] = None


class _Answer(BaseModel):
    """The members of the provider's answer that the service reads."""

    main: _Main
    weather: Annotated[list[_Condition] | None, NULL_IF_INVALID] = None
    wind: Annotated[_Wind | None, NULL_IF_INVALID] = None
    dt: Annotated[Annotated[int, Field(ge=0, le=2**33)] | None, NULL_IF_INVALID] = None

    def as_weather(self) -> bytes:
        """Return the JSON that a task stores, in °C, % and m/s."""
        return orjson.dumps(
            {
                "temperature": self.main.temp,
                "condition": self.weather[0].main if self.weather else None,
                "humidity": self.main.humidity,
                "wind_speed": self.wind.speed if self.wind else None,
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
        self._logged_reason = ""
        self._unknown_cities: set[str] = set()

    async def request(self, city: str, *, seconds: float) -> bytes:
        """Send one request, and return the weather as JSON, or NO_SUCH_CITY if the provider says so itself.

        Raises WeatherUnavailableError, without the text of its cause, which holds the URL with the API key.
        """
        try:
            async with self._session.get(
                self._url,
                params={"q": city, "units": "metric", "appid": self._api_key},
                headers={"Accept": "application/json"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=max(0.001, seconds)),
            ) as response:
                answer = self._read(response, await _text(response))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise WeatherUnavailableError(type(error).__name__) from None
        self._log_unknown(city, answer)
        return answer

    def _read(self, response: aiohttp.ClientResponse, text: str) -> bytes:
        if response.status in {401, 403}:
            logger.bind(status=response.status, setting="OPENWEATHER_API_KEY").warning("weather key refused")
        try:
            fields = orjson.loads(text)
        except orjson.JSONDecodeError:
            fields = None
        if isinstance(fields, dict) and response.status in {200, 400, 404} and _says_no_such_city(fields):
            return NO_SUCH_CITY
        if response.status != 200 or not isinstance(fields, dict):
            self._log_once(response, text)
            raise WeatherUnavailableError(f"status {response.status}")
        try:
            answer = _Answer.model_validate(fields).as_weather()
        except ValidationError:
            self._log_once(response, text)
            raise UnusableAnswerError("no temperature") from None
        self._logged_reason = ""
        return answer

    def _log_once(self, response: aiohttp.ClientResponse, text: str) -> None:
        """Log an unexpected answer, unless it is the one of before."""
        start = " ".join(text.replace(self._api_key, "***").split())[:MAX_LOGGED_CHARACTERS]
        location = response.headers.get("Location", "").partition("?")[0]  # the parameters may have the key
        fields = {"status": response.status, "location": location, "body": start}
        reason = repr(fields)
        if reason != self._logged_reason:
            self._logged_reason = reason
            logger.bind(**{name: value for name, value in fields.items() if value}).warning("weather answer unexpected")

    def _log_unknown(self, city: str, answer: bytes) -> None:
        """Log that the provider knows none of many cities: the URL or the key may be another service's."""
        if answer != NO_SUCH_CITY:
            self._unknown_cities.clear()
        elif len(self._unknown_cities) < SUSPICIOUS_CITIES:
            self._unknown_cities.add(city)
            if len(self._unknown_cities) == SUSPICIOUS_CITIES:
                logger.bind(cities=SUSPICIOUS_CITIES, setting="OPENWEATHER_URL").warning(
                    "weather provider knows no city"
                )


def _says_no_such_city(fields: dict[str, Any]) -> bool:
    message = NO_SUCH_CITY_MESSAGES.get(str(fields.get("cod")))
    return message is not None and message in str(fields.get("message")).casefold()


async def _text(response: aiohttp.ClientResponse) -> str:
    """Return the body as text, in the charset that the response names, without a byte order mark.

    Raises: ValueError for an unknown charset, WeatherUnavailableError for a body that is too large.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise WeatherUnavailableError("too large")
    try:
        return body.decode(response.charset or "utf-8", errors="replace").removeprefix("\ufeff")
    except LookupError:
        raise ValueError("unknown charset") from None


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Provider]:
    """Open the provider's HTTP session, and close it at the end."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=True) as session:
        yield Provider(settings, session=session)
