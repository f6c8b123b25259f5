"""The limits of log-ins, by address and by account."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from cachetools import LRUCache

from service.core.errors import RateLimitedError
from service.core.redis import RedisClient, RedisUnavailableError
from service.core.settings import Settings
from service.ratelimit.limiter import MAX_KEYS, Limit, LimitDecision

ADDRESSES = 10  # that may guess at one account at full speed
REMEMBERED_SECONDS = 90 * 24 * 3600
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Limits:
    """The limits of the service; None where one is switched off."""

    requests: Limit | None
    logins_limit: LoginLimiter | None
    trusted: tuple[Network, ...] = ()

    @classmethod
    def of(cls, given: Settings, redis: RedisClient | None) -> Limits:
        """Make them as the settings say."""
        requests, logins_limit = given.rate_limit_per_minute, given.login_limit_per_minute
        return cls(
            requests=Limit("requests", requests, redis) if requests else None,
            logins_limit=LoginLimiter(logins_limit, redis) if logins_limit else None,
            trusted=given.trusted_proxies,
        )


class LoginLimiter:
    """Against guessing: so many log-ins for each address, and ADDRESSES times as many for an account.

    Every hash that a request causes counts as one: see `service.attempts`.

    One address spends no more than its own budget, a small part of the account's, which bounds guessing from many
    addresses at once. An address from which an account has logged in before has a budget of its own for it, so that
    they do not keep the owner out.
    """

    def __init__(self, per_minute: int, redis: RedisClient | None) -> None:
        self.by_address = Limit("log-ins", per_minute, redis)
        self._by_account = Limit("account", ADDRESSES * per_minute, redis)
        self._redis = redis
        self._known: LRUCache[str, bool] = LRUCache(MAX_KEYS)

    async def check_account(self, username: str, address: str) -> LimitDecision:
        """Spend one log-in of the account."""
        pair = _pair(username, address)
        return await self._by_account.check(
            f"known:{pair}" if await self._is_known(pair) else f"any:{username.lower()}"
        )

    async def remember(self, username: str, address: str) -> None:
        """Remember that the account logged in from there."""
        pair = _pair(username, address)
        self._known[pair] = True
        if self._redis:
            with suppress(RedisUnavailableError):
                await self._redis.call(lambda redis: redis.set(f"limit:known:{pair}", 1, ex=REMEMBERED_SECONDS))

    async def _is_known(self, pair: str) -> bool:
        if pair in self._known:
            return True
        if self._redis:
            with suppress(RedisUnavailableError):
                return bool(await self._redis.call(lambda redis: redis.exists(f"limit:known:{pair}")))
        return False


def _pair(username: str, address: str) -> str:
    return f"{address} {username.lower()}"


class LogInAttempt:
    """A request as the payer of its hashes: each is a log-in of its address and, where it names one, of an account."""

    def __init__(
        self,
        logins_limit: LoginLimiter | None,
        *,
        address: str,
        account: str | None,
        verdicts: dict[str, LimitDecision],
    ) -> None:
        self.address = address
        self._account = account
        self._log_ins = logins_limit
        self._verdicts = verdicts
        self._prepaid = logins_limit is not None and logins_limit.by_address.policy in verdicts
        self._admitted = False

    @property
    def key(self) -> str:
        """The account, or the address where there is none."""
        return f"address:{self.address}" if self._account is None else f"account:{self._account.lower()}"

    async def charge(self) -> None:
        """Spend a log-in of the address, unless one was spent before the body was read, and one of the account.

        RateLimitedError for the first hash alone: a request that was admitted is not refused halfway, or a client that
        comes back with one log-in would never get through the two hashes of a new password.
        """
        if self._log_ins is None:
            return
        if not self._prepaid:
            self._spend(await self._log_ins.by_address.check(self.address))
        if self._account is not None:
            self._spend(await self._log_ins.check_account(self._account, self.address))
        self._prepaid, self._admitted = False, True

    def _spend(self, verdict: LimitDecision) -> None:
        self._verdicts[verdict.policy] = verdict
        if verdict.retry_after and not self._admitted:
            raise RateLimitedError("Too many requests.", retry_after=verdict.retry_after)
