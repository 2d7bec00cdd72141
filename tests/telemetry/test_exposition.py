"""Byte for byte what Prometheus' client library writes."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from heliosd.telemetry.exposition import text_of


def test_it_writes_what_the_library_writes() -> None:
    registry = CollectorRegistry()
    counter = Counter("asked", 'Of "all" \\ and\nmore.', ["b", "a"], registry=registry)
    counter.labels('x "y" \\z\n', "plain").inc(3)
    counter.labels("two", "").inc(1e21)
    counter.labels("three", "").inc(1234567)
    counter.labels("four", "").inc(0.1)
    Histogram("took_seconds", "Time.", ["route"], buckets=(0.1, 1), registry=registry).labels("/x").observe(0.5)
    Gauge("free_bytes", "Free.", registry=registry).set(-2.5)
    Gauge("nothing", "Never set.", ["who"], registry=registry)
    Gauge("endless", "Far away.", registry=registry).set(float("inf"))
    families = list(registry.collect())
    for family in families:
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]

    class Same:
        def collect(self) -> list[object]:
            return [*families, GaugeMetricFamily("empty", "None.", labels=["x"]), CounterMetricFamily("one", "1.", 1)]

    assert text_of(Same().collect()) == generate_latest(Same()).decode()  # type: ignore[arg-type]
