"""Clusters to start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import clusters


@pytest.fixture(scope="session")
def seed() -> Iterator[Path]:
    """A migrated cluster, stopped: its copies start in no time."""
    with clusters.own_folder() as folder:
        clusters.make(folder / "seed")
        yield folder / "seed"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for clusters."""
    with clusters.own_folder() as folder:
        yield folder


@pytest.fixture
def cluster(seed: Path, folder: Path) -> Iterator[clusters.Cluster]:
    """A migrated cluster of the test's own."""
    with clusters.running(clusters.copy(seed, folder / "pg")) as cluster:
        yield cluster
