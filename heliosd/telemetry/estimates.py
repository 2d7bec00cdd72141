"""How far estimates were off, as Prometheus reads it: told after each load, one term at a time."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from heliosd.estimation.accuracy import error_ratio, is_under

TERMS = ("weights", "kv_cache", "overhead", "total")
_RATIOS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class EstimateErrors:
    """The families of estimates in the registry of whoever has it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._last = Gauge(
            "helios_estimate_error_ratio",
            "(predicted - measured) / measured of the last load: below zero, too little was predicted.",
            ["term"],
            registry=registry,
        )
        self._sizes = Histogram(
            "helios_estimate_absolute_error_ratio",
            "|predicted - measured| / measured of all loads.",
            ["term"],
            buckets=_RATIOS,
            registry=registry,
        )
        self._under = Counter(
            "helios_estimate_under_predictions",
            "Loads that took more than was set aside, by over 1 %.",
            ["term"],
            registry=registry,
        )
        self._bytes = Gauge(
            "helios_estimate_bytes",
            "Of the last load, on each device: what was predicted, what was set aside (booked), what was measured.",
            ["term", "kind"],
            registry=registry,
        )
        for term in TERMS:
            self._under.labels(term)

    def checked(
        self, term: str, predicted_bytes: int, measured_bytes: int, booked_bytes: int | None = None
    ) -> float | None:
        """Count a load and return its error; None, and nothing is counted, where there is no ratio.

        `booked_bytes`: what was set aside, where that is not just what was predicted.
        """
        ratio = error_ratio(predicted_bytes, measured_bytes)
        if ratio is None:
            return None
        self._last.labels(term).set(ratio)
        booked = predicted_bytes if booked_bytes is None else booked_bytes
        for kind, n_bytes in (("predicted", predicted_bytes), ("booked", booked), ("measured", measured_bytes)):
            self._bytes.labels(term, kind).set(n_bytes)
        self._sizes.labels(term).observe(abs(ratio))
        under = is_under(booked, measured_bytes)
        self._under.labels(term).inc(int(under))
        return ratio
