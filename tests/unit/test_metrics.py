"""The metrics' own histogram and number, compared with the library's."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest, values

from service.core import metrics

OBSERVED = [0.0, 0.001, 0.0010001, 0.003, 0.5, 30, 30.1, 1e9, *metrics.SECONDS]


@pytest.fixture(params=[metrics._Value, values.MutexValue])
def value(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use one kind of number: the second is as the workers' numbers in files."""
    monkeypatch.setattr(values, "ValueClass", request.param)


def rendered(kind: type[Histogram]) -> bytes:
    registry = CollectorRegistry()
    histogram = kind("x", "X.", ("label",), buckets=metrics.SECONDS, registry=registry)
    for seconds in OBSERVED:
        histogram.labels("a").observe(seconds)
        histogram.labels("b").observe(seconds / 2)
    return generate_latest(registry)


@pytest.mark.usefixtures("value")
def test_a_histogram_renders_what_the_librarys_renders() -> None:
    assert rendered(metrics._Histogram) == rendered(Histogram)
    assert b'x_bucket{label="a",le="0.001"} 3.0' in rendered(metrics._Histogram)
