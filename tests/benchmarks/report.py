"""The comparison's tables: the goals, and the medians that they come from."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.footprint import Start, Subscribers
from tests.benchmarks.load import ENDPOINTS, Block
from tests.benchmarks.servers import BARE, MODELS, ORM, SERVICE

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- begin: python -m tests.benchmarks --write -->", "<!-- end -->"
NAMES = {SERVICE: "the service"}


@dataclass
class Results:
    """All that was measured; the blocks of each server and endpoint are in the order of the repetitions."""

    database: str
    load_average: float
    blocks: list[Block] = field(default_factory=list)
    start: Start | None = None
    subscribers: tuple[Subscribers, Subscribers] | None = None

    def of(self, server: str, endpoint: str) -> list[Block]:
        """Return the blocks of a server and an endpoint."""
        return [block for block in self.blocks if (block.server, block.endpoint) == (server, endpoint)]

    def ratio(self, endpoint: str, base: str, value: str) -> float:
        """Return the median of the service's ratio to another server within a repetition."""
        pairs = zip(self.of(SERVICE, endpoint), self.of(base, endpoint), strict=True)
        return float(statistics.median(getattr(own, value) / getattr(other, value) for own, other in pairs))


@dataclass(frozen=True)
class Goal:
    """A row of the goals; `is_limit`: the value is at most the goal, else at least."""

    title: str
    value: float
    goal: float
    is_limit: bool
    unit: str = ""

    def row(self) -> str:
        """Return the row of the table."""
        is_met = self.value <= self.goal if self.is_limit else self.value >= self.goal
        sign, met = "≤" if self.is_limit else "≥", "yes" if is_met else "**no**"
        return f"| {self.title} | {self.value:.3g}{self.unit} | {sign} {self.goal:g}{self.unit} | {met} |"


RATIOS = {
    # endpoint: server CPU against C, then requests per second against each twin
    "get": (2.0, {BARE: 0.50, ORM: 10.0, MODELS: 3.5}),
    "list": (2.2, {BARE: 0.65, ORM: 5.0}),
    "post": (2.5, {BARE: 0.45, ORM: 5.0}),
    "patch": (2.5, {BARE: 0.45, ORM: 5.0}),
    "analytics": (None, {BARE: 0.6}),
    "analytics_all": (None, {ORM: 3.0}),
}
DATABASE_CPU = {"post": 2.2, "patch": 3.0}


def goals(results: Results) -> Iterator[Goal]:
    """Yield the goals of what was measured."""
    for name, (cpu, rates) in RATIOS.items():
        if not results.of(SERVICE, name):
            continue
        title = ENDPOINTS[name].title
        if cpu:
            yield Goal(f"{title}: server CPU / {BARE}", results.ratio(name, BARE, "server_cpu"), cpu, True)
        for base, goal in rates.items():
            yield Goal(f"{title}: requests/s / {base}", results.ratio(name, base, "rate"), goal, False)
        if name in DATABASE_CPU:
            ratio = results.ratio(name, BARE, "database_cpu")
            yield Goal(f"{title}: PostgreSQL CPU / {BARE}", ratio, DATABASE_CPU[name], True)
    if results.subscribers:
        own, plain = results.subscribers
        message = own.message_microseconds / plain.message_microseconds
        yield Goal("1,000 idle WebSockets: share of a core that they add", own.added_share * 100, 0.5, True, " %")
        yield Goal("fan-out, 1,000 x 20/s: CPU of a message / plain sending", message, 0.25, True)
        yield Goal("fan-out: memory of a connection", own.connection_kib, 28, True, " KiB")
    if results.start:
        yield Goal("resident memory, idle", results.start.resident_mib, 85, True, " MiB")
        yield Goal("start to the first answer", results.start.seconds_to_first_answer, 1.5, True, " s")


def machine() -> str:
    """Return the processor, the system and the Python."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    name = models[0] if models else platform.machine()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {name}, {system}"


def markdown(results: Results) -> str:
    """Return the tables."""
    load = f"The load average before the run was {results.load_average:.1f}; it is 0 on a quiet machine."
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, PostgreSQL {results.database}. {load}",
        "",
        "| what | measured | goal | met |",
        "|---|---|---|---|",
        *(goal.row() for goal in goals(results)),
        "",
        "| request | server | requests | requests/s | median | p99 | server CPU | PostgreSQL CPU |",
        "|---|---|---|---|---|---|---|---|",
        *_rows(results),
    ]
    if results.subscribers:
        lines += ["", *_subscriber_rows(results.subscribers)]
    return "\n".join(lines) + "\n"


def _rows(results: Results) -> Iterator[str]:
    for server, endpoint in dict.fromkeys((block.server, block.endpoint) for block in results.blocks):
        blocks = results.of(server, endpoint)
        rate, p50, p99, cpu, database = (
            statistics.median(getattr(block, name) for block in blocks)
            for name in ("rate", "p50", "p99", "server_cpu", "database_cpu")
        )
        yield (
            f"| {ENDPOINTS[endpoint].title} | {NAMES.get(server, server)} | {sum(block.requests for block in blocks)} "
            f"| {rate:.0f} | {p50:.1f} ms | {p99:.1f} ms | {cpu:.0f} µs | {database:.0f} µs |"
        )


def _subscriber_rows(subscribers: tuple[Subscribers, Subscribers]) -> Iterator[str]:
    yield "| 1,000 WebSockets | idle, share of a core | of it added by them | CPU of a message | memory of one |"
    yield "|---|---|---|---|---|"
    for title, way in zip(("frames made once", "plain sending"), subscribers, strict=True):
        yield (
            f"| {title} | {way.idle_share:.2%} | {way.added_share:.2%} "
            f"| {way.message_microseconds:.1f} µs | {way.connection_kib:.1f} KiB |"
        )


def write(text: str) -> None:
    """Replace the generated part of the document."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
