"""What Prometheus reads: the rooms add to it, and `text` gives it.

Of several workers each keeps its own in files of one folder, and whichever is asked gives what all come to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

GAPS = "taken-away"  # beside the files: not all of them are there
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # the library's own; it looks once, when it is imported
if parent_process() is None:
    os.environ.pop(SHARED, None)  # somebody else's
elif SHARED in os.environ and not (folder := Path(os.environ[SHARED])).exists():
    folder.mkdir(mode=0o700, exist_ok=True)  # who cleans a machine up has taken it away
    (folder / GAPS).touch()

from prometheus_client import (  # noqa: E402
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead  # noqa: E402

from service.core.errors import UnavailableError  # noqa: E402

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OWN = CollectorRegistry()
disable_created_metrics()  # type: ignore[no-untyped-call]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def _histogram(name: str, what: str, *labels: str) -> Histogram:
    return Histogram(f"{name}_seconds", what, labels, namespace="task_manager", buckets=SECONDS, registry=OWN)


def _counter(name: str, what: str, *labels: str) -> Counter:
    return Counter(name, what, labels, namespace="task_manager", registry=OWN)


def _gauge(name: str, what: str, *labels: str, of_all: str = "livesum") -> Gauge:
    """`of_all`: how what the workers say comes together, in the library's words."""
    mode: Any = of_all
    return Gauge(name, what, labels, namespace="task_manager", registry=OWN, multiprocess_mode=mode)


REQUESTS = _histogram("http_request_duration", "Requests, to the end of their replies.", "method", "route", "status")
STATEMENTS = _histogram("sql_statement_duration", "Statements, without the wait for a connection.", "statement")
STATEMENT_ERRORS = _counter("sql_statement_errors", "Statements that failed, by problem.", "statement", "code")
POOL_WAITS = _histogram("db_pool_wait", "Waits for a connection, making it included.", "pool")
POOL_USED = _gauge("db_pool_connections_used", "Connections that are lent at present.", "pool")
POOL_SIZE = _gauge("db_pool_connections_max", "Connections that there may be.", "pool")
LISTENER_POLLED = _gauge(
    "listener_looked_timestamp_seconds",
    "When the listener last knew of every event, twice a second at least; of several workers, the one behind.",
    of_all="livemin",
)
SUBSCRIBERS = _gauge("event_subscribers", "WebSockets and streams that listen for events.")
SUBSCRIBERS_MAX = _gauge("event_subscribers_max", "WebSockets and streams that there may be.")
CONNECTIONS_REFUSED = _counter("connections_refused", "Connections and subscriptions beyond a bound.", "bound")
REDIS_CALLS = _histogram("redis_call_duration", "Calls of Redis that were answered.")
REDIS_UNAVAILABLE = _gauge("redis_away", "Whether Redis is configured and does not answer.", of_all="livemax")
CACHE = _counter("weather_cache_lookups", "Looks into the cache of weather.", "result")
WEATHER = _histogram("weather_request_duration", "Requests to the provider of weather.", "result")
CIRCUIT = _gauge("weather_circuit_open", "Whether the provider is left alone after failures.", of_all="livemax")
LIMITS = _counter("rate_limit_checks", "What rate limits said.", "policy", "result")


@contextmanager
def shared() -> Iterator[None]:
    """Make the folder in which the processes that are started meanwhile keep theirs."""
    with TemporaryDirectory(prefix="task-manager-metrics-") as folder:
        os.environ[SHARED] = folder
        yield


def text() -> bytes:
    """Give everything, in Prometheus's text format 0.0.4; UnavailableError where its folder was taken away."""
    if SHARED not in os.environ:
        return generate_latest(OWN)
    folder = Path(os.environ[SHARED])
    if (folder / GAPS).exists() or not any(folder.glob(f"*_{os.getpid()}.db")):
        raise UnavailableError("The workers' figures were taken away; restart the service.", retry_after=60)
    for pid in {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}:
        if not _lives(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
