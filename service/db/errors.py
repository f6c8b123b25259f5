"""The one door between the driver's errors and the service's: SQLSTATE and constraint name → ServiceError."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import asyncpg

from service.core.errors import ConflictError, InvalidError, ServiceError, UnauthorizedError, UnavailableError

GONE = "The account of this token no longer exists."
# What a violated constraint means to a client. `sql check` holds the headers' `raises` against this table, and a test
# holds the table against the schema.
CONSTRAINTS: dict[str, Callable[[], ServiceError]] = {
    "users_username_key": partial(ConflictError, "This username is taken."),
    "users_username_check": partial(InvalidError, "takes 3 to 50 of A-Z a-z 0-9 . _ -", pointer="/username"),
    "users_role_check": partial(InvalidError, "takes user or admin", pointer="/role"),
    "users_last_admin": partial(ConflictError, "The last active administrator stays."),
    "tickets_user_id_fkey": partial(UnauthorizedError, GONE),
    "sessions_user_id_fkey": partial(UnauthorizedError, GONE),
    "api_keys_user_id_fkey": partial(UnauthorizedError, GONE),
    "api_keys_name_check": partial(InvalidError, "takes 1 to 100 characters, not blank", pointer="/name"),
    "api_keys_expires_at_check": partial(InvalidError, "takes a moment of the calendar", pointer="/expires_at"),
    "idempotency_keys_user_id_fkey": partial(UnauthorizedError, GONE),
    "idempotency_keys_key_check": partial(
        InvalidError, "takes 1 to 255 visible ASCII characters", pointer="/header/idempotency-key"
    ),
    "tasks_user_id_fkey": partial(UnauthorizedError, GONE),
    "tasks_title_check": partial(InvalidError, "takes 1 to 100 characters, not blank", pointer="/title"),
    "tasks_description_check": partial(InvalidError, "takes at most 10,000 characters", pointer="/description"),
    "tasks_status_check": partial(InvalidError, "takes todo, in_progress or done", pointer="/status"),
    "attachments_added_by_fkey": partial(UnauthorizedError, GONE),
    "attachments_filename_check": partial(InvalidError, "takes a name and no path", pointer="/file"),
    "tasks_city_check": partial(InvalidError, "takes at most 100 characters", pointer="/city"),
}

# InternalClientError: a connection used after the server said that it ends (57P01) and before it did.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

# Another transaction stood in the way (40001, 40P01): what was rolled back may do when it is run again.
ROLLED_BACK = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)

# SQLSTATE classes and codes (PostgreSQL documentation, appendix A) behind which a needed part is away, slow or full:
# connection, transaction rollback, resources, operator intervention, authorization, unknown or closed database, lock,
# read-only, what a standby cannot do (begin a transaction that writes).
UNAVAILABLE = ("08", "40", "53", "57", "28", "3D", "55000", "55P03", "25006", "0A000")
# The schema is not the one that the statements were written for, or this role may not use it.
OUTDATED = ("42P01", "42703", "42883", "42501")


def translate(error: BaseException) -> BaseException:
    """Give the service's error for a driver's, or the same error where it is nobody's fault but ours (a 500)."""
    if isinstance(error, asyncpg.PostgresError):
        return _translate_sqlstate(error)
    return UnavailableError("The database is away or busy.")


def _translate_sqlstate(error: asyncpg.PostgresError) -> BaseException:
    code = error.sqlstate or ""
    name = getattr(error, "constraint_name", None)
    if code.startswith("23") and name in CONSTRAINTS:
        return CONSTRAINTS[name]()
    if code == "23514" or code.startswith("22"):  # a check of a DBA's own, or a value out of range
        return InvalidError("The database refuses a value.")
    if code.startswith(UNAVAILABLE):
        return UnavailableError("The database is away or busy.")
    if code.startswith(OUTDATED):
        return UnavailableError(
            "The database's schema is not this release's: has `python -m service migrate` run?", retry_after=10
        )
    return error
