"""Takes out of the tables what is too old: events beyond EVENT_RETENTION_DAYS, expired sessions, a day's answers."""

from __future__ import annotations

import asyncio
import random

from loguru import logger

from service.core.errors import ServiceError
from service.db.pool import Executor
from service.db.queries import q

PAUSE_SECONDS = 60.0
BATCH_ROWS = 1000
ANSWER_ROWS = 50  # each may have some 16 MB


async def run(db: Executor, *, days: int) -> None:
    """Do it until cancelled."""
    while True:
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - so that replicas do not march in step
        try:
            while expired := await q.events.expire(db, days=days, row_limit=BATCH_ROWS):
                logger.bind(events=expired).debug("old events are gone")
            while ended := await q.accounts.expire_sessions(db, row_limit=BATCH_ROWS):
                logger.bind(sessions=ended).debug("expired sessions are gone")
            while forgotten := await q.idempotency.expire(db, row_limit=ANSWER_ROWS):
                logger.bind(keys=forgotten).debug("old answers are gone")
        except ServiceError as error:
            logger.bind(cause=repr(error.__cause__)).warning("what is too old stays: {}", error.detail)
        except Exception:  # a defect of one round does not end all others
            logger.exception("what is too old stays")
