"""Circuit breakers that pause calls: one for the weather provider, and one for each city that fails."""

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
    """No weather: the provider is slow, fails, limits calls or answers nonsense, or its circuit is open."""


class UnusableAnswerError(WeatherUnavailableError):
    """The provider answered, but without a usable temperature: no failure of the provider."""


class ProviderCircuit:
    """One circuit breaker for the provider and one for each city that failed.

    A city counts once among the provider's failures until a call succeeds. A user who names one failing city again and
    again therefore does not open the circuit for the others.
    """

    def __init__(self) -> None:
        self._provider = _breaker("weather")
        self._cities: LRUCache[str, CircuitBreaker] = LRUCache(MAX_CITIES)
        self._failed_cities: set[str] = set()
        self._logged_state = self._provider.state
        self._has_trial = False

    @property
    def is_open(self) -> bool:
        """Whether the provider may not be called."""
        return bool(self._provider.opened)

    def check(self, city: str) -> bool:
        """Return whether a call would be a trial, of which one runs at a time.

        Raises WeatherUnavailableError if no call may be made.
        """
        is_trial: bool = self._provider.state == STATE_HALF_OPEN
        breaker = self._cities.get(city)
        if self.is_open or (is_trial and self._has_trial) or (breaker and breaker.opened):
            raise WeatherUnavailableError
        return is_trial

    @contextmanager
    def call(self, city: str) -> Iterator[None]:
        """Count a call as failed if it raises WeatherUnavailableError, else as successful; ignore a cancelled one."""
        is_trial = self.check(city)
        self._has_trial = self._has_trial or is_trial
        try:
            yield
            self._count_success(city)
        except UnusableAnswerError as error:
            self._count_success(city, error)
            raise
        except WeatherUnavailableError as error:
            self._count_failure(city, error, is_trial=is_trial)
            raise
        finally:
            if is_trial:
                self._has_trial = False
            self._log_change()

    def _count_success(self, city: str, error: UnusableAnswerError | None = None) -> None:
        """Count an answer of the provider. An unusable one counts as a failure of the city alone."""
        self._provider.reset()
        self._failed_cities.clear()
        if error:
            _fail(self._cities.setdefault(city, _breaker(city)), error)
        else:
            self._cities.pop(city, None)

    def _count_failure(self, city: str, error: WeatherUnavailableError, *, is_trial: bool) -> None:
        breaker = self._cities.setdefault(city, _breaker(city))
        _fail(breaker, error)
        if is_trial or city not in self._failed_cities:
            self._failed_cities.add(city)
            _fail(self._provider, error)

    def _log_change(self) -> None:
        state = self._provider.state
        if state != self._logged_state:
            self._logged_state = state
            metrics.CIRCUIT_OPEN.set(state != STATE_CLOSED)
            logger.bind(state=state, error=str(self._provider.last_failure)).warning("weather circuit changed")


def _breaker(name: str) -> CircuitBreaker:
    return CircuitBreaker(FAILURES, RECOVERY_SECONDS, WeatherUnavailableError, name=name)


def _fail(breaker: CircuitBreaker, error: WeatherUnavailableError) -> None:
    breaker.__exit__(type(error), error, None)
