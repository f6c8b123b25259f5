"""The metrics that Prometheus reads: packages add to them, and `text` renders them.

Each of several workers writes its own to files in one shared folder; the worker that Prometheus asks adds them up.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

INCOMPLETE = "taken-away"  # a marker in the folder: files of some workers were deleted
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # the library reads it once, when it is imported
FOLDER_PREFIX = "task-manager-metrics-"
folder = Path(os.environ.get(FOLDER_VARIABLE, ""))
# The name holds the pid of the process that starts the workers: a worker imports this module before multiprocessing
# tells it that it has a parent.
if not folder.name.startswith(f"{FOLDER_PREFIX}{os.getppid()}-"):
    os.environ.pop(FOLDER_VARIABLE, None)  # inherited from another program
elif not folder.exists():
    folder.mkdir(mode=0o700, exist_ok=True)  # some program that cleans temporary folders deleted it
    (folder / INCOMPLETE).touch()

from prometheus_client import (  # noqa: E402
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead  # noqa: E402
from typing_extensions import override  # noqa: E402

from service.core.errors import UnavailableError  # noqa: E402

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
REGISTRY = CollectorRegistry()
disable_created_metrics()  # type: ignore[no-untyped-call]


class _Value(values.MutexValue):
    """A number without the library's lock: only the thread of the event loop adds to a metric."""

    @override
    def inc(self, amount: float) -> None:
        self._value += amount


class _Histogram(Histogram):
    """A histogram that finds the bucket by bisection.

    An observation takes 0.24 µs with `_Value`, and 1.58 µs in the library.
    """

    @override
    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)


if values.ValueClass is values.MutexValue:  # no workers, which add to files
    values.ValueClass = _Value
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def _histogram(name: str, help_text: str, *labels: str) -> Histogram:
    return _Histogram(
        f"{name}_seconds", help_text, labels, namespace="task_manager", buckets=SECONDS, registry=REGISTRY
    )


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(name, help_text, labels, namespace="task_manager", registry=REGISTRY)


def _gauge(name: str, help_text: str, *labels: str, aggregation: str = "livesum") -> Gauge:
    """Return a gauge whose values of all workers the library combines by `aggregation`, one of its own names."""
    mode: Any = aggregation
    return Gauge(name, help_text, labels, namespace="task_manager", registry=REGISTRY, multiprocess_mode=mode)


REQUESTS = _histogram("http_request_duration", "Requests, to the end of their responses.", "method", "route", "status")
STATEMENTS = _histogram("sql_statement_duration", "Statements, without the wait for a connection.", "statement")
STATEMENT_ERRORS = _counter("sql_statement_errors", "Statements that failed, by problem.", "statement", "code")
POOL_WAITS = _histogram("db_pool_wait", "Waits for a connection, making it included.", "pool")
POOL_USED = _gauge("db_pool_connections_used", "Connections in use.", "pool")
POOL_SIZE = _gauge("db_pool_connections_max", "Upper bound of connections.", "pool")
LISTENER_POLLED = _gauge(
    "listener_looked_timestamp_seconds",
    "When the listener last had every event, renewed at least twice a second; the oldest of all workers.",
    aggregation="livemin",
)
SUBSCRIBERS = _gauge("event_subscribers", "WebSockets and event streams that are open.")
SUBSCRIBERS_MAX = _gauge("event_subscribers_max", "Upper bound of WebSockets and event streams.")
CONNECTIONS_REFUSED = _counter("connections_refused", "Connections and subscriptions beyond a bound.", "bound")
REDIS_CALLS = _histogram("redis_call_duration", "Calls that Redis answered.")
REDIS_UNAVAILABLE = _gauge("redis_away", "1 if Redis is configured and does not answer.", aggregation="livemax")
CACHE_LOOKUPS = _counter("weather_cache_lookups", "Reads of the weather cache.", "result")
WEATHER_REQUESTS = _histogram("weather_request_duration", "Requests to the weather provider.", "result")
CIRCUIT_OPEN = _gauge(
    "weather_circuit_open",
    "1 while failures pause calls to the weather provider.",
    aggregation="livemax",
)
LIMIT_CHECKS = _counter("rate_limit_checks", "Rate limit checks by result.", "policy", "result")


@contextmanager
def shared() -> Iterator[None]:
    """Create the folder for the metrics of the processes that start inside the block."""
    with TemporaryDirectory(prefix=f"{FOLDER_PREFIX}{os.getpid()}-") as created:
        os.environ[FOLDER_VARIABLE] = created
        yield


def text() -> bytes:
    """Return all metrics in Prometheus's text format 0.0.4.

    Raises UnavailableError if the workers' folder was deleted.
    """
    if FOLDER_VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    folder = Path(os.environ[FOLDER_VARIABLE])
    if (folder / INCOMPLETE).exists() or not any(folder.glob(f"*_{os.getpid()}.db")):
        raise UnavailableError("The workers' metrics were deleted; restart the service.", retry_after=60)
    for pid in {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}:
        if not _is_running(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
