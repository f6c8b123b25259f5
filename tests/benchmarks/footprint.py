"""What the service costs without requests: its start, its memory, and its subscribers."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial

import httpx
import psycopg

from tests.benchmarks import events
from tests.benchmarks.database import Cluster
from tests.benchmarks.events import ADMIN, DIRECT, FEW, OTHERS_CORE, PLAIN, WRITE
from tests.benchmarks.listeners import crowd
from tests.benchmarks.servers import SERVICE, service, started
from tests.support.servers import until

SUBSCRIBERS = 1000
IDLE_SECONDS, LOAD_SECONDS = 12, 8


@dataclass(frozen=True)
class Start:
    """Medians over several starts."""

    seconds_to_first_answer: float
    resident_mib: float


@dataclass(frozen=True)
class Subscribers:
    """What 1,000 WebSockets cost one way of sending; shares are of a core."""

    idle_share: float
    added_share: float
    message_microseconds: float
    connection_kib: float


def measure_start(cluster: Cluster, redis_url: str, *, repetitions: int) -> Start:
    """Start the service several times with the external database; the first start only warms the caches."""
    seconds, memory = [], []
    for _ in range(repetitions + 1):
        command, variables = service(cluster.service_url, redis_url)
        begun = time.perf_counter()
        with started(f"{SERVICE}.start", command, variables) as server, httpx.Client(base_url=server.url) as client:
            until(partial(_answers, client, "/healthz"))
            seconds.append(time.perf_counter() - begun)
            until(partial(_answers, client, "/readyz"))
            time.sleep(1)
            memory.append(server.resident_bytes() / 2**20)
    return Start(statistics.median(seconds[1:]), statistics.median(memory[1:]))


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False


def measure_subscribers(cluster: Cluster) -> tuple[Subscribers, Subscribers]:
    """Return what subscribers cost the service, and plain sending beside it."""
    return _subscribers(DIRECT, cluster.empty_url), _subscribers(PLAIN, cluster.empty_url)


def _subscribers(module: str, url: str) -> Subscribers:
    with events.running(module, url) as server, psycopg.connect(url, autocommit=True) as connection:
        with httpx.Client(base_url=server.url) as client:
            until(partial(_answers, client, "/readyz"))
            token = client.post("/auth/login", json=ADMIN).json()["access_token"]
        alone = server.idle(seconds=IDLE_SECONDS)
        with crowd(server.address, token, core=OTHERS_CORE) as listeners:
            listeners.grow(FEW)
            before = server.memory()
            listeners.grow(SUBSCRIBERS)
            kib = (server.memory() - before) / (SUBSCRIBERS - FEW) / 1024
            idle = server.idle(seconds=IDLE_SECONDS)
            cpu = events.load(
                server,
                listeners,
                lambda: connection.execute(WRITE),
                number=SUBSCRIBERS,
                seconds=LOAD_SECONDS,
                idle=idle,
            )
    return Subscribers(idle, idle - alone, cpu * 1e6, kib)
