"""What the constants come to, without the minutes that it would take to wait for it."""

from __future__ import annotations

from service.core.settings import Settings
from service.weather import backfill, circuit_breaker, client

TIMEOUT: float = Settings.model_fields["weather_timeout_seconds"].default


def test_a_circuit_tries_again_within_half_a_minute() -> None:
    assert circuit_breaker.RECOVERY_SECONDS + backfill.PAUSE_SECONDS + TIMEOUT < 30


def test_missing_weather_is_there_within_a_minute_of_the_providers_return() -> None:
    """A task that was put off just before is due, and found, and tried alone while others are put off once more."""
    assert circuit_breaker.RECOVERY_SECONDS < backfill.RETRY_SECONDS
    found = backfill.RETRY_SECONDS + backfill.PAUSE_SECONDS + TIMEOUT
    assert TIMEOUT + 2 * found < 60


def test_a_replica_requests_its_claimed_cities_before_others_may_claim_them() -> None:
    assert backfill.CLAIM_ROWS / client.CITIES_AT_ONCE * TIMEOUT <= backfill.RETRY_SECONDS
    assert client.CITIES_AT_ONCE < client.MAX_CALLS
