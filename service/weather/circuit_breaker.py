"""When the weather's provider is left alone: after failures for several cities, and a city after some of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cachetools import LRUCache
from circuitbreaker import STATE_CLOSED, STATE_HALF_OPEN, CircuitBreaker
from loguru import logger

from service.core import metrics

FAILURES, RECOVERY_SECONDS = 5, 10
MAX_CITIES = 1000


class WeatherUnavailableError(Exception):
    """The provider is slow, failing, limiting, nonsensical, or left alone for a while because it was."""


class ProviderCircuit:
    """One circuit breaker for the provider and one for each city that failed.

    A city counts once among the provider's failures until some look-up succeeds, so that those who name a city at which
    it fails, over and over, do not take the weather from all others.
    """

    def __init__(self) -> None:
        self._provider = _breaker("weather")
        self._cities: LRUCache[str, CircuitBreaker] = LRUCache(MAX_CITIES)
        self._failed: set[str] = set()
        self._said = self._provider.state
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether the provider is left alone."""
        return bool(self._provider.opened)

    def check(self, city: str) -> bool:
        """Whether a call would be a trial, of which there is one at a time; WeatherAwayError where none may be made."""
        trial: bool = self._provider.state == STATE_HALF_OPEN
        own = self._cities.get(city)
        if self.open or (trial and self._trying) or (own and own.opened):
            raise WeatherUnavailableError
        return trial

    @contextmanager
    def call(self, city: str) -> Iterator[None]:
        """Count how a call ends: with a WeatherAwayError, or well; what is cancelled says nothing of the provider."""
        trial = self.check(city)
        self._trying = self._trying or trial
        try:
            yield
            self._succeeded(city)
        except WeatherUnavailableError as error:
            self._count(city, error, trial=trial)
            raise
        finally:
            if trial:
                self._trying = False
            self._say()

    def _succeeded(self, city: str) -> None:
        self._provider.reset()
        self._failed.clear()
        self._cities.pop(city, None)

    def _count(self, city: str, error: WeatherUnavailableError, *, trial: bool) -> None:
        own = self._cities.setdefault(city, _breaker(city))
        _fail(own, error)
        if trial or city not in self._failed:
            self._failed.add(city)
            _fail(self._provider, error)

    def _say(self) -> None:
        state = self._provider.state
        if state != self._said:
            self._said = state
            metrics.CIRCUIT.set(state != STATE_CLOSED)
            logger.bind(last=str(self._provider.last_failure)).warning("weather: the circuit is {}", state)


def _breaker(name: str) -> CircuitBreaker:
    return CircuitBreaker(FAILURES, RECOVERY_SECONDS, WeatherUnavailableError, name=name)


def _fail(breaker: CircuitBreaker, error: WeatherUnavailableError) -> None:
    breaker.__exit__(type(error), error, None)
