"""Refused connections and subscriptions, counted and logged at most once a minute."""

from __future__ import annotations

import time
from math import inf

from loguru import logger

from service.core import metrics

WARNING_SECONDS = 60.0


class Refusals:
    """A counter of refused connections and subscriptions per bound, with at most one warning per bound and minute."""

    def __init__(self) -> None:
        self._warned_at: dict[str, float] = {}

    def add(self, bound: str) -> None:
        """Count one refusal; `bound` is the label of the metric."""
        metrics.CONNECTIONS_REFUSED.labels(bound).inc()
        now = time.monotonic()
        if now - self._warned_at.get(bound, -inf) >= WARNING_SECONDS:
            self._warned_at[bound] = now
            logger.bind(bound=bound).warning("connections refused")
