"""Leases: several permits of one GCRA in one call of Redis, which all processes share."""

from __future__ import annotations

from typing import NamedTuple

from service.core.redis import RedisUnavailableError, Scripts

# The hash has one field: when all that was leased is refilled, in µs since the epoch (GCRA's theoretical arrival time).
# A lease is `share` per cent of the free permits, at least one. %.0f, because Lua's default keeps 14 digits of the 16.
SCRIPT = """
local now, share, emission, burst = ARGV[1] * 1000, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local tat = math.max(now, tonumber(redis.call('HGET', KEYS[1], 'tat1') or 0) or 0)
local free = burst - math.ceil((tat - now) / emission)
local permits = math.max(1, math.floor(free * share / 100))
local wait = tat + (permits - burst) * emission - now
if wait > 0 then
    return {0, math.ceil(wait / 1000), string.format('%.0f', tat)}
end
tat = string.format('%.0f', tat + permits * emission)
redis.call('HSET', KEYS[1], 'tat1', tat)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {permits, 0, tat}
"""


class Lease(NamedTuple):
    """A number of permits, none after a refusal, and when all that any process leased is refilled."""

    permits: int
    retry_after_ms: int
    full_at_us: int


async def lease(scripts: Scripts, key: str, *, now_ms: int, share: int, emission_us: int, burst: int) -> Lease:
    """Lease `share` per cent of the free permits of a key, at least one. Raises RedisUnavailableError."""
    expires_ms = 2 * emission_us * burst // 1000
    reply = await scripts.run(SCRIPT, keys=[key], args=[now_ms, share, emission_us, burst, expires_ms])
    try:
        return Lease(*map(int, reply))
    except (TypeError, ValueError):  # the server is not Redis
        raise RedisUnavailableError from None
