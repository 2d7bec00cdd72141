"""Who has the memory and who waits for it, as Prometheus families beside those of `gauges`. Pure.

One series for each replica that is there, never for each model of the store.
"""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from heliosd.core.causes import WAITS, wait_cause
from heliosd.core.lifecycle import State
from heliosd.core.messages import Footprint
from heliosd.core.snapshot import BreakerStatus, HostAccount, ReplicaStatus, Snapshot, Waiting

_ASLEEP = (State.ASLEEP,)
_HOLDS = (State.READY, State.DRAINING)


def accounts(snapshot: Snapshot) -> Iterator[Metric]:
    """Bytes are bytes, ratios are 0 to 1."""
    yield from _by_device(snapshot)
    yield from _replicas(snapshot.replicas)
    yield from _host(snapshot.host)
    yield from _breakers(snapshot.breakers)
    yield from _waits(snapshot.waiting, snapshot.at)


def _by_device(snapshot: Snapshot) -> Iterator[Metric]:
    used = dict.fromkeys((account.device.id for account in snapshot.devices), 0.0)
    residue = dict.fromkeys(used, 0)
    for replica in snapshot.replicas:
        for device in replica.devices:
            if device not in used:
                continue
            if replica.state in _HOLDS:
                used[device] += replica.promised.kv_cache_bytes * replica.kv_used_ratio
            elif replica.state in _ASLEEP:
                residue[device] += replica.promised.total_bytes
    yield labelled(
        "helios_device_kv_used_bytes",
        "Of the KV cache promised to awake replicas, what holds tokens, as their engines last said.",
        ["device"],
        (([device], n_bytes) for device, n_bytes in used.items()),
    )
    yield labelled(
        "helios_device_residue_bytes",
        "Of what is promised, what sleeping replicas keep.",
        ["device"],
        (([device], n_bytes) for device, n_bytes in residue.items()),
    )


def _replicas(replicas: Sequence[ReplicaStatus]) -> Iterator[Metric]:
    yield labelled(
        "helios_replica_info",
        "What a replica is and where it runs.",
        ["replica", "model", "revision", "devices"],
        (([r.id, r.model, r.revision[:12], "+".join(r.devices)], 1) for r in replicas),
    )
    yield labelled(
        "helios_replica_leases",
        "Requests that a replica works on.",
        ["replica", "model"],
        (([r.id, r.model], len(r.leases)) for r in replicas),
    )
    yield labelled(
        "helios_replica_limit",
        "Requests that a replica may work on at once now.",
        ["replica", "model"],
        (([r.id, r.model], r.limit) for r in replicas),
    )
    yield labelled(
        "helios_replica_kv_used_ratio",
        "How full a replica's KV cache is, as its engine last said.",
        ["replica", "model"],
        (([r.id, r.model], r.kv_used_ratio) for r in replicas if r.state in _HOLDS),
    )
    yield labelled(
        "helios_replica_memory_bytes",
        "On each of its devices, what a replica was promised, and what it was measured to hold.",
        ["replica", "model", "term", "kind"],
        (
            ([r.id, r.model, term, kind], n_bytes)
            for r in replicas
            for kind, footprint in (("promised", r.promised), ("measured", r.measured))
            if footprint is not None
            for term, n_bytes in _terms(footprint)
        ),
    )


def _terms(footprint: Footprint) -> tuple[tuple[str, int], ...]:
    return (
        ("weights", footprint.weights_bytes),
        ("kv_cache", footprint.kv_cache_bytes),
        ("overhead", footprint.overhead_bytes),
    )


def _host(host: HostAccount) -> Iterator[Metric]:
    free = "Host memory that another sleeping replica may take: of the limit, and of what the machine has left."
    yield GaugeMetricFamily("helios_host_free_bytes", free, host.free_bytes)
    tier = "Host memory of models that are kept ready to load; they give way to sleepers."
    yield GaugeMetricFamily("helios_host_tier_bytes", tier, host.tier_bytes)


def _breakers(breakers: Sequence[BreakerStatus]) -> Iterator[Metric]:
    yield labelled(
        "helios_breaker_failures",
        "Failed starts in a row of a model on some devices; gone once one succeeds.",
        ["model", "devices"],
        (([each.model, "+".join(each.devices)], each.failures) for each in breakers),
    )
    yield labelled(
        "helios_breaker_open",
        "1 while a model must not be started on some devices, 0 while one start is tried.",
        ["model", "devices"],
        (([each.model, "+".join(each.devices)], int(each.state == "open")) for each in breakers),
    )


def _waits(waiting: Sequence[Waiting], at: float) -> Iterator[Metric]:
    counts, oldest = dict.fromkeys(WAITS, 0), dict.fromkeys(WAITS, 0.0)
    for each in waiting:
        reason = wait_cause(each.reason)
        counts[reason] += 1
        oldest[reason] = max(oldest[reason], at - each.since)
    yield labelled(
        "helios_queue_reason_requests",
        "Requests that wait for a replica, by what they wait for.",
        ["reason"],
        (([reason], count) for reason, count in counts.items()),
    )
    yield labelled(
        "helios_queue_reason_oldest_seconds",
        "How long the oldest of them waits, by what it waits for.",
        ["reason"],
        (([reason], seconds) for reason, seconds in oldest.items()),
    )


def labelled(
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    """A family with a sample for each row of label values."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family
