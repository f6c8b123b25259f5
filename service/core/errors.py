"""The errors of the service; `api.problems` maps each to an HTTP status.

ServiceError
├── InvalidError             `invalid`         an invalid value
├── UnauthorizedError        `unauthorized`    missing, bad or expired credentials
├── ForbiddenError           `forbidden`       authenticated, but not allowed
├── NotFoundError            `not_found`       no such resource, or not visible to the viewer
├── ConflictError            `conflict`        in conflict with the present state
├── PreconditionFailedError  `stale`           an `If-Match` that no longer matches
├── TooLargeError            `too_large`       more bytes than the limit
│   └── QuotaError           `quota_exceeded`  more bytes than the user's quota has left
├── UnavailableError         `unavailable`     a required part is unavailable, slow or full
├── RateLimitedError         `rate_limited`    too many requests
└── StartError               `start`           the service cannot start, or a command cannot run
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """The base of all errors: `code` is a stable name for programs, `detail` a sentence that any client may see."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidError(ServiceError):
    """An invalid value; `pointer` is the RFC 6901 pointer to it, or empty."""

    code = "invalid"

    def __init__(self, detail: str, *, pointer: str = "") -> None:
        super().__init__(detail)
        self.pointer = pointer


class UnauthorizedError(ServiceError):
    """Missing, bad or expired credentials."""

    code = "unauthorized"


class ForbiddenError(ServiceError):
    """An authenticated account that is not allowed to do this."""

    code = "forbidden"


class NotFoundError(ServiceError):
    """No such resource, or none that the viewer may see."""

    code = "not_found"


class ConflictError(ServiceError):
    """A request in conflict with the present state."""

    code = "conflict"


class PreconditionFailedError(ServiceError):
    """A precondition that names a version other than the present one, which is `version`."""

    code = "stale"

    def __init__(self, detail: str, *, version: int) -> None:
        super().__init__(detail)
        self.version = version


class TooLargeError(ServiceError):
    """More bytes than the limit."""

    code = "too_large"


class QuotaError(TooLargeError):
    """More bytes than the user's quota has left."""

    code = "quota_exceeded"


class UnavailableError(ServiceError):
    """A required part that is unavailable, slow or full; a retry after `retry_after` seconds may succeed."""

    code = "unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RateLimitedError(ServiceError):
    """Too many requests; the next one is admitted after `retry_after` seconds."""

    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class StartError(ServiceError):
    """A failed start of the service or of a command; the detail is one line for the operator."""

    code = "start"
