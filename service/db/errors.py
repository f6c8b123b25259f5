"""Translates the driver's errors, by SQLSTATE and constraint name, into the service's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import asyncpg
from loguru import logger

from service.core.errors import ConflictError, InvalidError, ServiceError, UnauthorizedError, UnavailableError

NO_ACCOUNT = "The account of this token no longer exists."
# The error that a client gets for each violated constraint. `sql check` compares the headers' `raises` with this table,
# and a test compares the table with the schema.
CONSTRAINTS: dict[str, Callable[[], ServiceError]] = {
    "users_username_key": partial(ConflictError, "This username is taken."),
    "users_username_check": partial(InvalidError, "Input should be 3 to 50 of A-Z a-z 0-9 . _ -", pointer="/username"),
    "users_role_check": partial(InvalidError, "Input should be user or admin", pointer="/role"),
    "users_last_admin": partial(ConflictError, "The last active administrator must stay."),
    "tickets_user_id_fkey": partial(UnauthorizedError, NO_ACCOUNT),
    "sessions_user_id_fkey": partial(UnauthorizedError, NO_ACCOUNT),
    "api_keys_user_id_fkey": partial(UnauthorizedError, NO_ACCOUNT),
    "api_keys_name_check": partial(
        InvalidError, "Input should have 1 to 100 characters that are not all blank", pointer="/name"
    ),
    "api_keys_expires_at_check": partial(
        InvalidError, "Input should be a moment of the calendar", pointer="/expires_at"
    ),
    "idempotency_keys_user_id_fkey": partial(UnauthorizedError, NO_ACCOUNT),
    "idempotency_keys_key_check": partial(
        InvalidError, "Input should have 1 to 255 visible ASCII characters", pointer="/header/idempotency-key"
    ),
    "tasks_user_id_fkey": partial(UnauthorizedError, NO_ACCOUNT),
    "tasks_title_check": partial(
        InvalidError, "Input should have 1 to 100 characters that are not all blank", pointer="/title"
    ),
    "tasks_description_check": partial(
        InvalidError, "Input should have at most 10,000 characters", pointer="/description"
    ),
    "tasks_status_check": partial(InvalidError, "Input should be todo, in_progress or done", pointer="/status"),
    "attachments_added_by_fkey": partial(UnauthorizedError, NO_ACCOUNT),
    "attachments_filename_check": partial(
        InvalidError, "Input should have a file name without a path", pointer="/file"
    ),
    "tasks_city_check": partial(InvalidError, "Input should have at most 100 characters", pointer="/city"),
}

# InternalClientError: the connection was used between the server's notice that it ends (57P01) and its end.
DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

# Conflicts with another transaction (40001, 40P01): the same statement may succeed when it runs again.
ROLLED_BACK = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)

# SQLSTATE classes and codes (PostgreSQL documentation, appendix A) of a database that is unavailable, slow or full:
# connection, transaction rollback, resources, operator intervention, authorization, unknown or closed database, lock,
# read-only transaction, feature that a standby lacks (a transaction that writes).
UNAVAILABLE = ("08", "40", "53", "57", "28", "3D", "55000", "55P03", "25006", "0A000")
# A missing table, column or function: the schema is not this release's.
OUTDATED = ("42P01", "42703", "42883")
MISSING_PERMISSION = "42501"
# Unique, foreign key and exclusion: in conflict with other rows. The rest of class 23, and class P0 (`raise
# exception`), are about the value.
CONFLICTS = {"23505", "23503", "23P01"}
REFUSED = "The database refuses this value."


def translate(error: BaseException) -> BaseException:
    """Return the service's error for an error of the driver, or the same error if it is a defect of ours (a 500)."""
    if isinstance(error, asyncpg.PostgresError):
        return _translate_sqlstate(error)
    return UnavailableError("The database is unavailable or busy.")


def _translate_sqlstate(error: asyncpg.PostgresError) -> BaseException:
    code = error.sqlstate or ""
    if code.startswith(("23", "P0")):
        return _refused(error, code)
    if code.startswith("22"):  # a value out of range
        return InvalidError(REFUSED)
    if code == MISSING_PERMISSION:
        return UnavailableError("The database role lacks a permission.", retry_after=10)
    if code.startswith(UNAVAILABLE):
        return UnavailableError("The database is unavailable or busy.")
    if code.startswith(OUTDATED):
        return UnavailableError(
            "The database schema does not match this release: run `python -m service migrate`.", retry_after=10
        )
    return error


def _refused(error: asyncpg.PostgresError, code: str) -> ServiceError:
    """Return the error of a violated rule; log one that a DBA added, because the table does not know it."""
    rule = getattr(error, "constraint_name", None)
    if rule in CONSTRAINTS:
        return CONSTRAINTS[rule]()
    table = getattr(error, "table_name", None)
    logger.bind(rule=rule or str(error), table=table, sqlstate=code).warning("value refused by the database")
    return ConflictError(REFUSED) if code in CONFLICTS else InvalidError(REFUSED)


def discarded(statement: str) -> ServiceError:
    """Return the error of a row that a trigger discarded, and log it."""
    logger.bind(rule="a trigger returned null", statement=statement).warning("value refused by the database")
    return ConflictError(REFUSED)
