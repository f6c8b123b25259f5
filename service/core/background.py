"""Background loops that run a coroutine function again and again until they are cancelled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from loguru import logger

from service.core.errors import ServiceError


async def run_every(
    seconds: float,
    work: Callable[[], Awaitable[None]],
    *,
    name: str,
    at_once: bool = False,
    wake: asyncio.Event | None = None,
) -> None:
    """Run `work` after every pause of `seconds`, less up to half of it, until cancelled.

    An error does not end the loop. A ServiceError is logged as one warning, any other exception with its trace.

    name: the noun in the log line, "cleanup" for "cleanup failed".
    at_once: skip the pause before the first run.
    wake: an event that ends a pause early; the loop clears it before it runs `work`.
    """
    wake = wake or asyncio.Event()
    if at_once:
        wake.set()
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.5, 1)):  # noqa: S311 - replicas must not run in step
                await wake.wait()
        wake.clear()
        try:
            await work()
        except ServiceError as error:
            logger.bind(detail=error.detail, cause=repr(error.__cause__)).warning("{} failed", name)
        except Exception:  # a defect in one run must not end the loop
            logger.exception("{} failed", name)
