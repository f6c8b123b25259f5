"""Reads the samples of `/metrics`."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class MetricSamples:
    """The samples of one response of `/metrics`."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("task_manager_")
        ]

    def of(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with the name, without the prefix `task_manager_`, and these labels."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == f"task_manager_{name}" and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str, label: str) -> set[str]:
        """Return the values of a label over all samples of a metric."""
        return {sample.labels[label] for sample in self._samples if sample.name == f"task_manager_{name}"}
