"""Counts of what went otherwise than was wished, by the reason: evictions, waits, failures of engines."""

from prometheus_client import CollectorRegistry, Counter

from heliosd.core.causes import EVICTIONS, WAITS
from heliosd.core.oom import out_of_memory

STEPS = ("sleep", "stop", "drain")
PHASES = ("starting", "serving", "sleeping", "waking")
MEMORIES = ("device", "host")


class Reasons:
    """The families in the registry of whoever has it. Every series is there from the beginning, at zero."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._evictions = Counter(
            "helios_evictions",
            "Replicas sent down the ladder (drain: they finish what they serve first), by why.",
            ["step", "reason"],
            registry=registry,
        )
        self._waits = Counter(
            "helios_queue_wait_reason_seconds",
            "Seconds that requests spent waiting, by what they waited for.",
            ["reason"],
            registry=registry,
        )
        self._failures = Counter(
            "helios_engine_failures",
            "Engines that ended without being told to, by what they were at.",
            ["phase"],
            registry=registry,
        )
        self._shortages = Counter(
            "helios_out_of_memory",
            "Engines that died for want of memory, by whose.",
            ["memory"],
            registry=registry,
        )
        for reason in EVICTIONS:
            for step in STEPS:
                self._evictions.labels(step, reason)
        for reason in WAITS:
            self._waits.labels(reason)
        for phase in PHASES:
            self._failures.labels(phase)
        for memory in MEMORIES:
            self._shortages.labels(memory)

    def evicted(self, step: str, reason: str) -> None:
        """A replica went down a step (one of STEPS) for a reason (one of EVICTIONS)."""
        self._evictions.labels(step, reason).inc()

    def waited(self, reason: str, seconds: float) -> None:
        """A request spent so long waiting for this (one of WAITS)."""
        self._waits.labels(reason).inc(max(0.0, seconds))

    def failed(self, phase: str, cause: str) -> None:
        """An engine ended by itself in this phase (one of PHASES), with these last words."""
        self._failures.labels(phase).inc()
        if shortage := out_of_memory(cause):
            self._shortages.labels("host" if shortage.host else "device").inc()
