"""Prometheus' registry that also knows the labels of what is in it: the documentation is made of that."""

from typing import Any

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector, CollectorRegistry


class Registry(CollectorRegistry):
    """Of one daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: dict[str, tuple[str, ...]] = {}
        """By the name of each counter, gauge and histogram; collectors of other libraries have none."""

    def register(self, collector: Collector) -> None:
        super().register(collector)
        if isinstance(collector, MetricWrapperBase):
            for family in collector.describe():
                self.labels[family.name] = labels_of(collector)


def labels_of(family: Any) -> tuple[str, ...]:
    """The labels a family was made with, whether or not it has a sample yet."""
    return tuple(family._labelnames)
