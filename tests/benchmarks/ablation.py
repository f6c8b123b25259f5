"""placeholder"""

from __future__ import annotations
from tests.benchmarks.database import Cluster


def profile(cluster: Cluster, redis_url: str) -> None: ...
