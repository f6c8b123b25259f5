"""What can go wrong, in the service's own words; HTTP gives each code its status in `web.replies`.

ServiceError
├── InvalidError        `invalid`         a value that the service cannot take
├── UnauthorizedError   `unauthorized`    no, bad or expired credentials
├── ForbiddenError      `forbidden`       known, but not allowed
├── NotFoundError       `not_found`       nothing there
├── ConflictError       `conflict`        the present state forbids it
├── PreconditionFailedError          `stale`           an `If-Match` that no longer matches
├── TooLargeError       `too_large`       more bytes than are taken
│   └── QuotaError      `quota_exceeded`  more bytes than are left of the user's quota
├── UnavailableError    `unavailable`     a needed part is away, slow or full
├── RateLimitedError    `rate_limited`    too many requests
└── StartError          `start`           the service cannot start, or a command cannot do its work
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """Base of all: `code` is a stable word for machines, `detail` a sentence that may be shown to anyone."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidError(ServiceError):
    """A value that the service cannot take; `pointer` is the RFC 6901 pointer to it, where one is known."""

    code = "invalid"

    def __init__(self, detail: str, *, pointer: str = "") -> None:
        super().__init__(detail)
        self.pointer = pointer


class UnauthorizedError(ServiceError):
    """No, bad or expired credentials."""

    code = "unauthorized"


class ForbiddenError(ServiceError):
    """Known, but not allowed."""

    code = "forbidden"


class NotFoundError(ServiceError):
    """Nothing there."""

    code = "not_found"


class ConflictError(ServiceError):
    """The present state forbids it."""

    code = "conflict"


class PreconditionFailedError(ServiceError):
    """The precondition names a version that is not the present one; `version` is the present one."""

    code = "stale"

    def __init__(self, detail: str, *, version: int) -> None:
        super().__init__(detail)
        self.version = version


class TooLargeError(ServiceError):
    """More bytes than are taken."""

    code = "too_large"


class QuotaError(TooLargeError):
    """More bytes than are left of the user's quota."""

    code = "quota_exceeded"


class UnavailableError(ServiceError):
    """A needed part is away, slow or full; asking again after `retry_after` seconds may work."""

    code = "unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimitedError(ServiceError):
    """Too many requests; there is room for one again after `retry_after` seconds."""

    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class StartError(ServiceError):
    """The service cannot start, or a command cannot do its work; the detail is one line for the operator."""

    code = "start"
