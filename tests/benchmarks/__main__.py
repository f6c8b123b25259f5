"""Compares the service with other stacks: `make bench`, or `python -m tests.benchmarks [--only get,post] [--write]`.

O is FastAPI with SQLAlchemy's ORM, P is FastAPI with asyncpg and response models, C is bare ASGI with the same
statement and no authentication, hello is ASGI without a database. All have the same million tasks. The servers run on
one core, PostgreSQL, Redis and wrk on the other. Blocks of requests are interleaved, and a goal compares medians of
ratios within a repetition. `--profile` prints what the parts of a request cost instead.
"""

from __future__ import annotations

import argparse
import os

import psycopg

from tests.benchmarks import ablation, footprint, load, report
from tests.benchmarks.database import Cluster, prepared
from tests.benchmarks.report import Results
from tests.benchmarks.servers import BARE, HELLO, LOAD_CORE, MODELS, ORM, SERVICE, prepare_accounts, running
from tests.support.redis_server import RedisServer

SERVERS = [SERVICE, ORM, MODELS, BARE]
FOOTPRINT = ["subscribers", "start"]
WARM_UP_SECONDS = 1


def measure_requests(cluster: Cluster, redis_url: str, results: Results, arguments: argparse.Namespace) -> None:
    """Run the blocks of all servers, each repetition in the opposite order of the one before."""
    endpoints = [name for name in load.ENDPOINTS if name in arguments.only]
    accounts = prepare_accounts(cluster.service_url)
    with running(cluster, redis_url, accounts, [*SERVERS, HELLO]) as servers:
        for name in SERVERS:
            load.check(servers[name], accounts)
        for repetition in range(arguments.repetitions):
            for endpoint in endpoints:
                names = [*SERVERS, HELLO] if endpoint == "get" else SERVERS
                for name in names[:: -1 if repetition % 2 else 1]:
                    if repetition == 0:
                        load.run(servers[name], endpoint, cluster, accounts, seconds=WARM_UP_SECONDS, seed=0)
                    results.blocks.append(
                        load.run(
                            servers[name],
                            endpoint,
                            cluster,
                            accounts,
                            seconds=arguments.seconds,
                            seed=repetition + 1,
                        )
                    )
            print(f"repetition {repetition + 1} of {arguments.repetitions}", flush=True)


def compare(cluster: Cluster, redis_url: str, arguments: argparse.Namespace) -> None:
    """Measure all that is asked for and print the tables."""
    with psycopg.connect(cluster.url) as connection:
        version = connection.info.server_version
    results = Results(f"{version // 10_000}.{version % 10_000}", os.getloadavg()[0])
    cluster.pin(LOAD_CORE)
    if set(load.ENDPOINTS) & set(arguments.only):
        measure_requests(cluster, redis_url, results, arguments)
    if "start" in arguments.only:
        results.start = footprint.measure_start(cluster, redis_url, repetitions=arguments.repetitions)
    if "subscribers" in arguments.only:
        results.subscribers = footprint.measure_subscribers(cluster)
    text = report.markdown(results)
    print(text)
    if arguments.write:
        report.write(text)


def main() -> None:
    """Prepare the data where that was not done, and measure."""
    everything = [*load.ENDPOINTS, *FOOTPRINT]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each block")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=everything, help=f"some of {','.join(everything)}"
    )
    parser.add_argument("--write", action="store_true", help="renew the tables of docs/performance.md")
    parser.add_argument("--profile", action="store_true", help="print what the parts of a request cost, in process")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(everything):
        parser.error(f"--only {','.join(sorted(unknown))}: not one of {','.join(everything)}")
    with prepared() as cluster:
        os.sched_setaffinity(0, {LOAD_CORE})
        with RedisServer() as redis:
            if arguments.profile:
                ablation.profile(cluster, redis.url)
            else:
                compare(cluster, redis.url, arguments)


if __name__ == "__main__":
    main()
