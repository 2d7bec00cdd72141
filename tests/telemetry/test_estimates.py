"""What Prometheus reads of the estimates after loads."""

import pytest
from prometheus_client import CollectorRegistry

from heliosd.core.snapshot import Snapshot
from heliosd.telemetry.estimates import EstimateErrors
from heliosd.telemetry.metrics import Metrics, Scrape

TERMS = ("weights", "overhead")
EMPTY = Scrape(Snapshot(0.0, (), (), (), False), "1", 0, 0, 0, {}, 0, 0, 0, 0, ())


def test_the_last_error_is_told_with_its_sign() -> None:
    registry = CollectorRegistry()
    errors = EstimateErrors(registry)
    assert errors.checked("weights", 110, 100) == pytest.approx(0.1)
    assert errors.checked("weights", 90, 100) == pytest.approx(-0.1)
    assert errors.checked("overhead", 300, 100) == pytest.approx(2.0)
    last = {term: registry.get_sample_value("helios_estimate_error_ratio", {"term": term}) for term in TERMS}
    assert last == {"weights": pytest.approx(-0.1), "overhead": pytest.approx(2.0)}


def test_all_errors_are_counted_by_size() -> None:
    registry = CollectorRegistry()
    errors = EstimateErrors(registry)
    for predicted in (1000, 1004, 970):
        errors.checked("weights", predicted, 1000)

    def within(bound: str) -> float | None:
        labels = {"term": "weights", "le": bound}
        return registry.get_sample_value("helios_estimate_absolute_error_ratio_bucket", labels)

    assert (within("0.001"), within("0.005"), within("0.05")) == (1, 2, 3)


def test_only_more_than_was_set_aside_is_a_broken_promise() -> None:
    registry = CollectorRegistry()
    errors = EstimateErrors(registry)

    def under() -> float | None:
        return registry.get_sample_value("helios_estimate_under_predictions_total", {"term": "total"})

    errors.checked("total", 900, 1000, booked_bytes=1000)
    assert under() == 0
    errors.checked("total", 900, 1000)
    assert under() == 1


def test_a_ratio_to_nothing_is_not_counted() -> None:
    registry = CollectorRegistry()
    assert EstimateErrors(registry).checked("kv_cache", 5, 0) is None
    assert registry.get_sample_value("helios_estimate_error_ratio", {"term": "kv_cache"}) is None


def test_a_scrape_shows_it() -> None:
    metrics = Metrics()
    metrics.estimate_checked("weights", 95, 100, booked_bytes=101)
    text = metrics.render(EMPTY).decode()
    assert 'helios_estimate_error_ratio{term="weights"} -0.05' in text
    assert 'helios_estimate_absolute_error_ratio_count{term="weights"} 1.0' in text
    assert 'helios_estimate_under_predictions_total{term="weights"} 0.0' in text
