"""The rate limits of log-ins, by address and by account."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from cachetools import LRUCache

from service.core.errors import RateLimitedError
from service.core.redis import RedisClient, RedisUnavailableError
from service.core.settings import Settings
from service.ratelimit.limiter import MAX_KEYS, LimitDecision, RateLimiter

ADDRESSES_PER_ACCOUNT = 10  # that may guess at one account at full speed
REMEMBERED_SECONDS = 90 * 24 * 3600
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Limits:
    """The rate limits of the service, None if one is switched off, and the proxies whose forwarded addresses count."""

    requests: RateLimiter | None
    logins: LoginLimiter | None
    trusted_proxies: tuple[Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings, redis: RedisClient | None) -> Limits:
        """Build the limits from the settings."""
        requests, logins = settings.rate_limit_per_minute, settings.login_limit_per_minute
        return cls(
            requests=RateLimiter("requests", requests, redis) if requests else None,
            logins=LoginLimiter(logins, redis) if logins else None,
            trusted_proxies=settings.trusted_proxies,
        )


class LoginLimiter:
    """Limits against password guessing: `per_minute` per address, and ADDRESSES_PER_ACCOUNT times that per account.

    Every password hash that a request causes counts as one log-in.

    One address uses at most its own budget, a small part of the account's. The account's budget bounds guesses from
    many addresses at once. An address that has logged in to the account before has a separate budget for that account,
    so guesses from elsewhere do not lock the owner out.
    """

    def __init__(self, per_minute: int, redis: RedisClient | None) -> None:
        self.by_address = RateLimiter("log-ins", per_minute, redis)
        self._by_account = RateLimiter("account", ADDRESSES_PER_ACCOUNT * per_minute, redis)
        self._redis = redis
        self._remembered: LRUCache[str, bool] = LRUCache(MAX_KEYS)

    async def check_account(self, username: str, address: str) -> LimitDecision:
        """Use one log-in of the account."""
        pair = _pair(username, address)
        return await self._by_account.check(
            f"known:{pair}" if await self._is_remembered(pair) else f"any:{username.lower()}"
        )

    async def remember(self, username: str, address: str) -> None:
        """Remember that the address logged in to the account."""
        pair = _pair(username, address)
        self._remembered[pair] = True
        if self._redis:
            with suppress(RedisUnavailableError):
                await self._redis.call(lambda redis: redis.set(f"limit:known:{pair}", 1, ex=REMEMBERED_SECONDS))

    async def _is_remembered(self, pair: str) -> bool:
        if pair in self._remembered:
            return True
        if self._redis:
            with suppress(RedisUnavailableError):
                return bool(await self._redis.call(lambda redis: redis.exists(f"limit:known:{pair}")))
        return False


def _pair(username: str, address: str) -> str:
    return f"{address} {username.lower()}"


class LogInAttempt:
    """One request that hashes passwords; each hash counts as a log-in of its address and of the account it names."""

    def __init__(
        self,
        limiter: LoginLimiter | None,
        *,
        address: str,
        account: str | None,
        decisions: dict[str, LimitDecision],
    ) -> None:
        self.address = address
        self._account = account
        self._limiter = limiter
        self._decisions = decisions
        self._is_prepaid = limiter is not None and limiter.by_address.policy in decisions
        self._is_admitted = False

    @property
    def key(self) -> str:
        """The key of the account, or of the address if the request names no account."""
        return f"address:{self.address}" if self._account is None else f"account:{self._account.lower()}"

    async def charge(self) -> None:
        """Count one log-in of the account, and of the address unless the pipeline has counted it before the body.

        Raises RateLimitedError before the first hash only. A change of password needs two hashes: refused at the second
        one, a client with one log-in left would never change its password.
        """
        if self._limiter is None:
            return
        if not self._is_prepaid:
            self._record(await self._limiter.by_address.check(self.address))
        if self._account is not None:
            self._record(await self._limiter.check_account(self._account, self.address))
        self._is_prepaid, self._is_admitted = False, True

    def _record(self, decision: LimitDecision) -> None:
        self._decisions[decision.policy] = decision
        if decision.retry_after and not self._is_admitted:
            raise RateLimitedError("Too many requests.", retry_after=decision.retry_after)
