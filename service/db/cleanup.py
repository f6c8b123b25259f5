"""Deletes expired events, sessions and idempotency keys."""

from __future__ import annotations

from loguru import logger

from service.core.background import run_every
from service.db.pool import Executor
from service.db.queries import q

PAUSE_SECONDS = 60.0
BATCH_ROWS = 1000
RESPONSE_BATCH_ROWS = 50  # a saved response has up to 16 MB


async def run(db: Executor, *, days: int) -> None:
    """Delete expired rows again and again until cancelled; `days` is the age at which events expire."""

    async def delete_expired() -> None:
        while events := await q.events.expire(db, days=days, row_limit=BATCH_ROWS):
            logger.bind(events=events).debug("events deleted")
        while sessions := await q.accounts.expire_sessions(db, row_limit=BATCH_ROWS):
            logger.bind(sessions=sessions).debug("sessions deleted")
        while keys := await q.idempotency.expire(db, row_limit=RESPONSE_BATCH_ROWS):
            logger.bind(keys=keys).debug("idempotency keys deleted")

    await run_every(PAUSE_SECONDS, delete_expired, name="cleanup")
