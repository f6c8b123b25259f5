"""Permits of one GCRA over all processes, leased from Redis a share of what is free at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyrate_limiter import Rate
from pyrate_limiter.abstracts.algorithm import GCRA, Decision
from pyrate_limiter.buckets.redis_state import RedisStateStore

from service.core.redis import RedisUnavailableError

# Around the library's script, whose weight becomes so many per cent of what is free, and one at least.
SCRIPT = """
local ARGV = {unpack(ARGV)}
local function step()
%s
end
local function tat()
    return tonumber(redis.call('HGET', KEYS[1], 'tat1') or 0) or 0
end
local now, emission, burst = ARGV[1] * 1000, tonumber(ARGV[5]), tonumber(ARGV[6])
local free = burst - math.ceil(math.max(0, tat() - now) / emission)
ARGV[2] = math.max(1, math.floor(free * ARGV[2] / 100))
local said = step()
said[3] = ARGV[2]
said[4] = string.format('%%.0f', tat())
return said
"""


@dataclass(frozen=True)
class Lease(Decision):
    """How many permits there are, none where it is refused, and until when all that was ever leased is refilled."""

    permits: int = 0
    full_at_us: int = 0


class Leasing(GCRA):
    """GCRA whose weight is, in Redis, a share of what is free in per cent."""

    def redis_script(self) -> str:
        """Give the library's script with what is around it."""
        return SCRIPT % super().redis_script()


class SharedState(RedisStateStore):
    """The library's state of one key in Redis, of which `check` gives a Lease."""

    @staticmethod
    def _decision(rates: list[Rate], reply: Sequence[Any]) -> Lease:
        try:
            decision = RedisStateStore._decision(rates, reply)
            permits = int(reply[2]) if decision.allowed else 0
            return Lease(decision.failing_rate, decision.retry_after_ms, permits, int(reply[3]))
        except (LookupError, TypeError, ValueError):  # what speaks there is not Redis
            raise RedisUnavailableError from None
