"""Keys' use as counters."""

from prometheus_client import CollectorRegistry

from heliosd.core.units import GiB
from heliosd.telemetry.key_usage import KeyUsage


def test_tokens_by_kind_and_memory_in_gib_seconds() -> None:
    registry = CollectorRegistry()
    usage = KeyUsage(registry)
    usage.tokens("ann", 10, 4, 3)
    usage.tokens("ann", 1, 0, 0)
    usage.memory("ann", 3 * GiB)
    usage.refused("ann")
    kinds = {
        kind: registry.get_sample_value("helios_key_tokens_total", {"key": "ann", "kind": kind})
        for kind in ("prompt", "cached", "completion")
    }
    assert kinds == {"prompt": 11, "cached": 4, "completion": 3}
    assert registry.get_sample_value("helios_key_gib_seconds_total", {"key": "ann"}) == 3
    assert registry.get_sample_value("helios_key_refusals_total", {"key": "ann"}) == 1
