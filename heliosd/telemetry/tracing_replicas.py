"""Spans of what replicas go through: start with its phases, sleep, wake, drain, stop. One at a time for each."""

from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.trace import Span, SpanContext

from heliosd.core.messages import StartReplica
from heliosd.core.names import ReplicaId
from heliosd.core.scheduler import Scheduler
from heliosd.core.timeline import Timeline
from heliosd.core.units import format_bytes
from heliosd.telemetry.tracing import Attributes, Tracing, Value, clean, fail, now_ns, trace_id_of, traceparent
from heliosd.telemetry.tracing_waiting import Asked


@dataclass(frozen=True, slots=True)
class _Doing:
    name: str
    span: Span
    began_ns: int
    cause: Asked | None = None
    """Who gets the room."""


class ReplicaSpans:
    """Below the request that waits for it, or a trace of its own."""

    def __init__(self, tracing: Tracing, now: Callable[[], float]) -> None:
        self._tracing = tracing
        self._now = now
        self._doing: dict[ReplicaId, _Doing] = {}
        self._starts: dict[ReplicaId, SpanContext] = {}
        """Of replicas that are there, how they began."""

    def trace_of(self, replica: ReplicaId) -> str | None:
        """The id of the trace that tells of what the replica goes through now; None: it is not kept."""
        doing = self._doing.get(replica)
        return trace_id_of(doing.span) if doing is not None and doing.span.is_recording() else None

    def traceparent_of(self, replica: ReplicaId) -> str:
        """Of what it goes through, for its engine."""
        doing = self._doing.get(replica)
        return traceparent(doing.span) if doing is not None else ""

    def start_of(self, replica: ReplicaId) -> SpanContext | None:
        """How it began, where that was kept."""
        return self._starts.get(replica)

    def note(self, replica: ReplicaId, attributes: Attributes) -> None:
        """Something worth knowing of what it goes through."""
        if doing := self._doing.get(replica):
            doing.span.set_attributes(clean(attributes))

    def start(self, command: StartReplica, scheduler: Scheduler, asked: Asked | None, thinking_ns: int) -> None:
        """It starts, as the scheduler decided after it began to think at `thinking_ns`."""
        there = scheduler.replicas.get(command.replica)
        since_s = self._now() - there.started_at if there else 0.0
        at_ns = now_ns() - int(since_s * 1e9)  # phases count from the event that led to the decision
        what = _decision(command) | _memory(command, scheduler)
        if asked is not None:
            victims, freed_bytes = asked.takes_room()
            what |= {"helios.evicted": victims, "helios.evicted_bytes": freed_bytes} if victims else {}
        root = asked.trace.root if asked else None
        if root is not None:
            self._tracing.begin("placement", what, under=root, at_ns=thinking_ns).end()
        span = self._tracing.begin("start", what, under=root, at_ns=at_ns)
        self._doing[command.replica] = _Doing("start", span, at_ns)
        if span.is_recording():
            self._starts[command.replica] = span.get_span_context()

    def begin(self, name: str, replica: ReplicaId, reason: str, scheduler: Scheduler, asked: Asked | None) -> None:
        """It does something else from now on, for who asked if anybody did; what follows a drain has its cause."""
        there, before = scheduler.replicas.get(replica), self._doing.get(replica)
        model = there.demand.model if there else None
        if asked is None and before is not None and before.name == "drain":
            asked = before.cause
        self.over(replica, {})
        if asked is not None and there is not None and name in ("sleep", "stop"):
            freed_bytes = there.demand.per_device.total_bytes * len(there.devices)
            asked.gets_room(f"{name} {replica} of {model}: {format_bytes(freed_bytes)}", freed_bytes)
        what: Attributes = {"helios.replica": replica, "helios.model": model, "helios.reason": reason}
        span = self._tracing.begin(name, what, under=asked.trace.root if asked else None)
        self._doing[replica] = _Doing(name, span, now_ns(), asked)

    def over(self, replica: ReplicaId, attributes: Attributes, cause: str | None = None) -> None:
        """That has ended, or failed for the cause given."""
        self.note(replica, attributes)
        if doing := self._doing.pop(replica, None):
            if cause is not None:
                fail(doing.span, cause)
            doing.span.end()

    def gone(self, replica: ReplicaId, cause: str | None) -> None:
        """All of it has ended."""
        self.over(replica, {}, cause)
        self._starts.pop(replica, None)

    def phases(self, replica: ReplicaId, timeline: Timeline | None) -> None:
        """The phases of its start, each at its true time: some may lie before the decision to start it."""
        doing = self._doing.get(replica)
        if doing is None or doing.name != "start" or timeline is None or not doing.span.is_recording():
            return
        above: dict[str, Span] = {"": doing.span}
        for phase in sorted(timeline.spans, key=lambda each: bool(each.within)):
            times_s = (at_s - timeline.lead_s for at_s in (phase.began_s, phase.ended_s))
            began_ns, ended_ns = (doing.began_ns + int(at_s * 1e9) for at_s in times_s)
            span = self._tracing.begin(phase.phase, under=above.get(phase.within, doing.span), at_ns=began_ns)
            span.end(ended_ns)
            if not phase.within:
                above[phase.phase] = span


def _decision(command: StartReplica) -> dict[str, Value | None]:
    return {
        "helios.replica": command.replica,
        "helios.model": command.demand.model,
        "helios.devices": list(command.devices),
        "helios.reason": command.reason,
        "helios.takes_over": command.takes_over,
    }


def _memory(command: StartReplica, scheduler: Scheduler) -> dict[str, Value | None]:
    """What it will take, and of its devices the ledger's columns with it in them."""
    predicted = command.demand.per_device
    found: dict[str, Value | None] = {
        "helios.predicted_bytes": predicted.total_bytes,
        "helios.predicted_weights_bytes": predicted.weights_bytes,
        "helios.predicted_kv_cache_bytes": predicted.kv_cache_bytes,
        "helios.predicted_overhead_bytes": predicted.overhead_bytes,
    }
    for device in command.devices:
        account = scheduler.ledger.account(device)
        found[f"helios.device.{device}.booked_bytes"] = account.promised.total_bytes
        found[f"helios.device.{device}.free_bytes"] = account.free_bytes
        found[f"helios.device.{device}.foreign_bytes"] = account.foreign_bytes
    return found
