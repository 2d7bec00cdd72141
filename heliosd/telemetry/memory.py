"""What engines hold over time, which of them leak, and when something will be full, as Prometheus families."""

import math
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from heliosd.core.exhaustion import Exhaustion
from heliosd.core.snapshot import MemoryStatus, Snapshot

DAEMON = "daemon"


def memory_families(snapshot: Snapshot) -> Iterator[Metric]:
    """`replica` is `daemon` for heliosd itself. What is not in sight is infinitely far away."""
    held = [(str(each.id), each.memory) for each in snapshot.replicas if each.memory is not None]
    if snapshot.daemon is not None:
        held.append((DAEMON, snapshot.daemon))
    yield from _held(held)
    recycles = CounterMetricFamily(
        "helios_recycles", "Replicas that were replaced, by what they leaked.", labels=["model", "reason"]
    )
    for model, where, number in snapshot.recycles:
        recycles.add_metric([model, f"{where}_leak"], number)
    yield recycles
    seconds = GaugeMetricFamily(
        "helios_exhaustion_seconds",
        "Until a device, a disk (store, state) or host memory (host) is full, at the speed it fills; +Inf: not in "
        "sight. That models are likely to be asked for which do not fit together is no shortage: they take turns.",
        labels=["device", "tier"],
    )
    for account in snapshot.devices:
        seconds.add_metric([account.device.id, ""], _filling(account.exhaustion))
    for space, seen in snapshot.spaces:
        seconds.add_metric(["", space.name], _filling(seen))
    yield seconds


def _filling(seen: Exhaustion) -> float:
    """Only what grows: what is full, or will be wanted, has metrics and alerts of its own."""
    return seen.after_s if seen.basis == "trend" else math.inf


def _held(held: list[tuple[str, MemoryStatus]]) -> Iterator[Metric]:
    pss = GaugeMetricFamily(
        "helios_process_pss_bytes", "RAM of a replica's processes, shared pages in shares.", labels=["replica"]
    )
    floor = GaugeMetricFamily(
        "helios_idle_floor_bytes", "The least that a replica held lately while idle.", labels=["replica", "memory"]
    )
    suspected = GaugeMetricFamily("helios_leak_suspected", "1 while a replica leaks.", labels=["replica"])
    slope = GaugeMetricFamily(
        "helios_leak_slope_bytes_per_second", "By which what it holds grows, lastingly.", labels=["replica"]
    )
    for name, each in held:
        if each.pss_bytes is not None:
            pss.add_metric([name], each.pss_bytes)
        for memory, n_bytes in (("host", each.host_floor_bytes), ("device", each.device_floor_bytes)):
            if n_bytes:
                floor.add_metric([name, memory], n_bytes)
        suspected.add_metric([name], int(each.suspected))
        slope.add_metric([name], each.slope_bytes_per_s)
    yield from (pss, floor, suspected, slope)
