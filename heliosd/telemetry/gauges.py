"""What a snapshot says, as Prometheus families. Pure: values in, families out."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from heliosd.core.hardware import DeviceReading
from heliosd.core.lifecycle import State
from heliosd.core.messages import Priority
from heliosd.core.snapshot import DeviceAccount, PreloadCount, Snapshot
from heliosd.telemetry.memory import memory_families


def gauges(
    snapshot: Snapshot,
    *,
    version: str,
    models: int,
    store_logical_bytes: int,
    store_physical_bytes: int,
    fetched: Mapping[str, int],
    journal_entries: int,
    journal_lost: int,
    recorded_events: int,
    recorded_lost: int,
) -> Iterator[Metric]:
    """All gauges of one scrape. Bytes are bytes, seconds are seconds, ratios are 0 to 1."""
    yield _labelled("helios_build_info", "The version that runs.", ["version"], [([version], 1)])
    yield GaugeMetricFamily("helios_draining", "1 while the node takes no new requests.", snapshot.draining)
    yield from _devices(snapshot.devices)
    yield from _host(snapshot)
    yield from memory_families(snapshot)
    states = dict.fromkeys(("open", "half-open"), 0)
    for breaker in snapshot.breakers:
        states[breaker.state] += 1
    rows = [([state], number) for state, number in states.items()]
    yield _labelled("helios_breakers", "Models that are not started on some devices, by state.", ["state"], rows)
    yield from _replicas(snapshot)
    yield from _preloads(snapshot.preloads)
    yield GaugeMetricFamily("helios_models", "Models in the store.", models)
    yield _labelled(
        "helios_store_bytes",
        "Bytes of all models' files (logical), and of what is on the disk for them (physical).",
        ["kind"],
        [(["logical"], store_logical_bytes), (["physical"], store_physical_bytes)],
    )
    fetched_bytes = CounterMetricFamily(
        "helios_fetched_bytes", "Bytes of models that came from the hub, and from other nodes.", labels=["source"]
    )
    for source, n_bytes in fetched.items():
        fetched_bytes.add_metric([source], n_bytes)
    yield fetched_bytes
    yield CounterMetricFamily("helios_journal_entries", "Lines written to the journal.", journal_entries)
    yield CounterMetricFamily("helios_journal_lost", "Lines of the journal that could not be written.", journal_lost)
    yield CounterMetricFamily("helios_recorded_events", "Events of the scheduler kept for replay.", recorded_events)
    yield CounterMetricFamily(
        "helios_recorded_events_lost", "Events of the scheduler that could not be kept.", recorded_lost
    )


def _replicas(snapshot: Snapshot) -> Iterator[Metric]:
    states = dict.fromkeys(State, 0)
    for replica in snapshot.replicas:
        states[replica.state] += 1
    yield _labelled(
        "helios_replicas", "Replicas by state.", ["state"], [([state], count) for state, count in states.items()]
    )
    leases = sum(len(replica.leases) for replica in snapshot.replicas)
    yield GaugeMetricFamily("helios_leases", "Requests being served by replicas of this node.", leases)
    yield GaugeMetricFamily("helios_queue_length", "Requests that wait for a replica.", len(snapshot.waiting))
    classes = dict.fromkeys(reversed(Priority), 0)
    for each in snapshot.waiting:
        classes[each.priority] += 1
    yield _labelled(
        "helios_queue_requests",
        "Requests that wait for a replica, by their class.",
        ["priority"],
        [([priority.name.lower()], count) for priority, count in classes.items()],
    )
    oldest = max((snapshot.at - waiting.since for waiting in snapshot.waiting), default=0.0)
    yield GaugeMetricFamily("helios_queue_oldest_seconds", "How long the oldest of them waits.", oldest)


def _host(snapshot: Snapshot) -> Iterator[Metric]:
    host = snapshot.host
    yield GaugeMetricFamily("helios_host_limit_bytes", "Host memory that sleeping replicas may hold.", host.limit_bytes)
    yield GaugeMetricFamily("helios_host_staged_bytes", "Host memory that sleeping replicas hold.", host.staged_bytes)
    yield GaugeMetricFamily("helios_host_shell_bytes", "Host memory of processes made ahead.", host.shell_bytes)


def _preloads(count: PreloadCount) -> Iterator[Metric]:
    text = "Replicas started before anyone asked: running still unasked."
    yield GaugeMetricFamily("helios_preloads_unasked", text, count.unasked)
    ended = CounterMetricFamily(
        "helios_preloads", "Replicas started before anyone asked: asked for in time, or not.", labels=["outcome"]
    )
    for outcome, number in (("hit", count.hits), ("miss", count.misses)):
        ended.add_metric([outcome], number)
    yield ended
    wasted = "Bytes times seconds held by replicas that were started ahead in vain."
    yield CounterMetricFamily("helios_preloads_wasted_byte_seconds", wasted, count.wasted_byte_s)


_COLUMNS: dict[str, tuple[str, Callable[[DeviceAccount], float]]] = {
    "capacity_bytes": ("Memory that could ever be used.", lambda a: a.device.capacity_bytes),
    "foreign_bytes": ("Held by processes that are not ours.", lambda a: a.foreign_bytes),
    "safety_bytes": ("Promised to nobody.", lambda a: a.safety_bytes),
    "measured_bytes": ("What our replicas were measured to hold.", lambda a: a.measured_bytes),
    "free_bytes": ("What may still be promised.", lambda a: a.free_bytes),
    "drift_bytes": ("Held by ours, as the device says, beyond what was measured.", lambda a: a.drift_bytes),
}
_READINGS: dict[str, tuple[str, Callable[[DeviceReading], float | None]]] = {
    "used_bytes": ("All processes together, as the device says.", lambda r: r.used_bytes),
    "utilization_ratio": ("Share of time it was busy.", lambda r: r.utilization_ratio),
    "temperature_celsius": ("Its temperature.", lambda r: r.temperature_c),
    "power_watts": ("Power drawn.", lambda r: r.power_w),
    "ecc_errors": ("Uncorrected, since the driver started.", lambda r: r.ecc_errors),
    "fault": ("1 when it cannot be used.", lambda r: int(r.fault is not None)),
}


def _devices(accounts: tuple[DeviceAccount, ...]) -> Iterator[Metric]:
    yield _labelled(
        "helios_device_info",
        "What a device is.",
        ["device", "kind", "name"],
        [([account.device.id, account.device.kind, account.device.name], 1) for account in accounts],
    )
    for name, (text, column) in _COLUMNS.items():
        rows = [([str(account.device.id)], column(account)) for account in accounts]
        yield _labelled(f"helios_device_{name}", text, ["device"], rows)
    readings = [account.reading for account in accounts if account.reading is not None]
    for name, (text, value) in _READINGS.items():
        numbers = [(str(reading.device), value(reading)) for reading in readings]
        known = [([device], number) for device, number in numbers if number is not None]
        yield _labelled(f"helios_device_{name}", text, ["device"], known)
    promised = [
        ([account.device.id, part], number)
        for account in accounts
        for part, number in (
            ("weights", account.promised.weights_bytes),
            ("kv_cache", account.promised.kv_cache_bytes),
            ("overhead", account.promised.overhead_bytes),
        )
    ]
    yield _labelled("helios_device_promised_bytes", "Promised to replicas.", ["device", "part"], promised)


def _labelled(
    name: str, text: str, labels: list[str], rows: Sequence[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family
