"""Log-in attempts: what a request pays for the passwords that it hashes or verifies."""

from __future__ import annotations

from service.core.errors import RateLimitedError
from service.limits import LogIns, Verdict


class LogInAttempt:
    """A request as the payer of its hashes: each is a log-in of its address and, where it names one, of an account."""

    def __init__(
        self, log_ins: LogIns | None, *, address: str, account: str | None, verdicts: dict[str, Verdict]
    ) -> None:
        self.address = address
        self._account = account
        self._log_ins = log_ins
        self._verdicts = verdicts
        self._prepaid = log_ins is not None and log_ins.by_address.policy in verdicts
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

    def _spend(self, verdict: Verdict) -> None:
        self._verdicts[verdict.policy] = verdict
        if verdict.retry_after and not self._admitted:
            raise RateLimitedError("Too many requests.", retry_after=verdict.retry_after)
