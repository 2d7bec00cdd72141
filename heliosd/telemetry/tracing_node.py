"""Makes spans of what the scheduler is told and decides: the stages of requests, and what replicas go through.

Who asked for a start, or has room made for him, finds it in his own trace. What nobody waits for, such as a start ahead
of requests, has a trace of its own, and the requests that it serves later link to it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from opentelemetry.trace import Span, SpanContext

from heliosd.core.messages import (
    Command,
    Demand,
    DrainReplica,
    Event,
    Forward,
    Grant,
    Hold,
    Refuse,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaSlept,
    ReplicaWoke,
    RequestReleased,
    SleepReplica,
    StartReplica,
    StopReplica,
    WakeReplica,
)
from heliosd.core.names import ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.timeline import Timeline
from heliosd.core.units import format_bytes
from heliosd.telemetry.tracing import Attributes, Tracing, Value, fail, now_ns, trace_id_of, traceparent
from heliosd.telemetry.tracing_current import request_trace
from heliosd.telemetry.tracing_request import RequestTrace

_KEPT_VICTIMS = 32
_NAMES = {SleepReplica: "sleep", DrainReplica: "drain", StopReplica: "stop"}


@dataclass(slots=True)
class _Doing:
    """What a replica is going through."""

    name: str
    span: Span
    began_ns: int
    cause: "_Asked | None" = None
    """Who gets the room."""


@dataclass(slots=True)
class _Asked:
    trace: RequestTrace
    model: str = ""
    waiting: bool = True
    times: int = 0
    """That it asked and has not been released from."""
    victims: list[str] = field(default_factory=list)
    """Whom it had room made by since its model was started last."""
    freed_bytes: int = 0


class NodeSpans:
    """Told of requests by `asked`, and by the node of every event and of the commands that it led to."""

    def __init__(self, tracing: Tracing, now: Callable[[], float]) -> None:
        """`now` is the node's clock."""
        self._tracing = tracing
        self._now = now
        self._asked: dict[Ticket, _Asked] = {}
        self._doing: dict[ReplicaId, _Doing] = {}
        self._starts: dict[ReplicaId, SpanContext] = {}
        """Of replicas that are there, how they began."""
        self._thinking_ns = 0
        """Since when the scheduler thinks about the last event."""

    # ---- requests --------------------------------------------------------------

    def asked(self) -> None:
        """The request of this task asks for a replica; what the model takes is looked up."""
        if trace := request_trace.get():
            trace.stage("estimate")

    def estimated(self, ticket: Ticket, model: str, demand: Demand | None) -> None:
        """It is known what the model takes, if the store has it; the scheduler is about to be asked.

        A release of the ticket follows, however it ends. Who asks once more under the same ticket may do so before.
        """
        if (trace := request_trace.get()) is None:
            return
        asked = self._asked.setdefault(ticket, _Asked(trace))
        asked.model, asked.waiting, asked.times = model, True, asked.times + 1
        takes: Attributes = {}
        if demand is not None:
            takes = {
                "helios.predicted_bytes": demand.per_device.total_bytes,
                "helios.device_count": demand.device_count,
            }
        trace.note({"helios.model": model, **takes})
        trace.stage("admission", takes)

    def stage(self, name: str) -> None:
        """Something else is done for the request of this task now."""
        if trace := request_trace.get():
            trace.stage(name)

    # ---- what is noted about it elsewhere --------------------------------------

    def trace_of(self, ticket: str | None, replica: str | None) -> str | None:
        """The id of the trace that tells of this request, or of what the replica goes through; None: it is not kept."""
        asked = self._asked.get(Ticket(ticket)) if ticket else None
        if asked is not None:
            return asked.trace.id if asked.trace.kept else None
        doing = self._doing.get(ReplicaId(replica)) if replica else None
        return trace_id_of(doing.span) if doing is not None and doing.span.is_recording() else None

    def traceparent_of(self, replica: ReplicaId) -> str:
        """Of a start under way, for its engine."""
        doing = self._doing.get(replica)
        return traceparent(doing.span) if doing is not None else ""

    def started_from(self, replica: ReplicaId, tier: str) -> None:
        """In which tier the weights are that a start reads."""
        if doing := self._doing.get(replica):
            doing.span.set_attribute("helios.tier", tier)

    # ---- events and commands ---------------------------------------------------

    def happened(self, event: Event, timeline: Timeline | None) -> None:
        """An event, before the scheduler takes it in. `timeline`: of the start that it ends."""
        self._thinking_ns = now_ns()
        match event:
            case ReplicaBecameReady(replica=replica, measured=measured):
                self._phases(replica, timeline)
                self._over(replica, {"helios.measured_bytes": measured.total_bytes})
            case ReplicaSlept(replica=replica, level=level, residue=residue, host_bytes=host_bytes):
                held: Attributes = {"helios.residue_bytes": residue.total_bytes, "helios.host_bytes": host_bytes}
                self._over(replica, {"helios.sleep_level": level, **held})
            case ReplicaWoke(replica=replica, measured=measured):
                self._over(replica, {"helios.measured_bytes": measured.total_bytes})
            case ReplicaExited(replica=replica, cause=cause):
                self._phases(replica, timeline)
                self._over(replica, {}, cause)
                self._starts.pop(replica, None)
            case _:
                pass

    def decided(self, event: Event, commands: Iterable[Command], scheduler: Scheduler) -> None:
        """What the scheduler answered to an event that `happened`."""
        for command in commands:
            match command:
                case Grant(ticket, replica, reason):
                    self._grant(ticket, replica, reason)
                case Hold(ticket, reason, position, eta_s):
                    if asked := self._asked.get(ticket):
                        place: Attributes = {"helios.position": position, "helios.eta_s": eta_s}
                        asked.trace.wait({"helios.reason": reason, **place})
                case Forward(ticket, peer, reason):
                    self._answered(ticket, "forward", {"helios.peer": peer, "helios.reason": reason})
                case Refuse(ticket, code, reason):
                    self._answered(ticket, "refuse", {"helios.code": code, "helios.reason": reason})
                case StartReplica():
                    self._start(command, scheduler)
                case WakeReplica(replica, reason):
                    self._begin("wake", replica, reason, scheduler)
                case SleepReplica(replica, _, reason) | DrainReplica(replica, reason) | StopReplica(replica, reason):
                    self._begin(_NAMES[type(command)], replica, reason, scheduler)
                case _:
                    pass
        if isinstance(event, RequestReleased) and (asked := self._asked.get(event.ticket)):
            asked.times -= 1
            if asked.times <= 0:
                del self._asked[event.ticket]

    def _grant(self, ticket: Ticket, replica: ReplicaId, reason: str) -> None:
        asked, start = self._asked.get(ticket), self._starts.get(replica)
        if asked is None:
            return
        own = start is not None and start.trace_id == asked.trace.root.get_span_context().trace_id
        asked.waiting = False
        asked.trace.note({"helios.replica": replica})
        what: Attributes = {"helios.replica": replica, "helios.reason": reason}
        asked.trace.stage("grant", what, link=None if own else start)

    def _answered(self, ticket: Ticket, name: str, attributes: Attributes) -> None:
        if asked := self._asked.get(ticket):
            asked.waiting = False
            asked.trace.stage(name, attributes)

    def _start(self, command: StartReplica, scheduler: Scheduler) -> None:
        demand, there = command.demand, scheduler.replicas.get(command.replica)
        since_s = self._now() - there.started_at if there else 0.0
        at_ns = now_ns() - int(since_s * 1e9)  # phases count from the event that led to the decision
        asked = self._waiting_for(demand.model)
        memory: dict[str, Value | None] = {"helios.predicted_bytes": demand.per_device.total_bytes}
        for term in ("weights", "kv_cache", "overhead"):
            memory[f"helios.predicted_{term}_bytes"] = getattr(demand.per_device, f"{term}_bytes")
        for device in command.devices:
            account = scheduler.ledger.account(device)
            memory[f"helios.device.{device}.booked_bytes"] = account.promised.total_bytes
            memory[f"helios.device.{device}.free_bytes"] = account.free_bytes
            memory[f"helios.device.{device}.foreign_bytes"] = account.foreign_bytes
        if asked is not None and asked.victims:
            memory |= {"helios.evicted": tuple(asked.victims), "helios.evicted_bytes": asked.freed_bytes}
            asked.victims, asked.freed_bytes = [], 0
        what: dict[str, Value | None] = {
            "helios.replica": command.replica,
            "helios.model": demand.model,
            "helios.devices": list(command.devices),
            "helios.reason": command.reason,
            "helios.takes_over": command.takes_over,
        }
        root = asked.trace.root if asked else None
        if root is not None:
            self._tracing.begin("placement", {**what, **memory}, under=root, at_ns=self._thinking_ns).end()
        span = self._tracing.begin("start", {**what, **memory}, under=root, at_ns=at_ns)
        self._doing[command.replica] = _Doing("start", span, at_ns)
        if span.is_recording():
            self._starts[command.replica] = span.get_span_context()

    def _begin(self, name: str, replica: ReplicaId, reason: str, scheduler: Scheduler) -> None:
        """A replica does something else from now on, for whom there has to be room for, if anybody waits."""
        there = scheduler.replicas.get(replica)
        model = there.demand.model if there else None
        asked = self._cause(reason) if name != "wake" else self._waiting_for(model or "")
        if asked is None and (before := self._doing.get(replica)) and before.name == "drain":
            asked = before.cause
        self._over(replica, {})
        if asked is not None and there is not None and name in ("sleep", "stop"):
            freed_bytes = there.demand.per_device.total_bytes * len(there.devices)
            asked.victims = [*asked.victims, f"{name} {replica} of {model}: {format_bytes(freed_bytes)}"][
                -_KEPT_VICTIMS:
            ]
            asked.freed_bytes += freed_bytes
        what: Attributes = {"helios.replica": replica, "helios.model": model, "helios.reason": reason}
        span = self._tracing.begin(name, what, under=asked.trace.root if asked else None)
        self._doing[replica] = _Doing(name, span, now_ns(), asked)

    def _over(self, replica: ReplicaId, attributes: Attributes, cause: str | None = None) -> None:
        doing = self._doing.pop(replica, None)
        if doing is None:
            return
        doing.span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        if cause is not None:
            fail(doing.span, cause)
        doing.span.end()

    def _phases(self, replica: ReplicaId, timeline: Timeline | None) -> None:
        """The phases of a start, each at its true time."""
        doing = self._doing.get(replica)
        if doing is None or doing.name != "start" or timeline is None or not doing.span.is_recording():
            return
        above: dict[str, Span] = {"": doing.span}
        for phase in sorted(timeline.spans, key=lambda each: bool(each.within)):
            began_ns, ended_ns = (doing.began_ns + int(at_s * 1e9) for at_s in (phase.began_s, phase.ended_s))
            under = above.get(phase.within, doing.span)
            span = self._tracing.begin(phase.phase, under=under, at_ns=began_ns)
            span.end(ended_ns)
            if not phase.within:
                above[phase.phase] = span

    def _waiting_for(self, model: str) -> _Asked | None:
        """Who has waited longest for the model; a trace that is kept goes before one that is not."""
        found = [each for each in self._asked.values() if each.model == model and each.waiting]
        return next((each for each in found if each.trace.kept), found[0] if found else None)

    def _cause(self, reason: str) -> _Asked | None:
        """For whom room is made: the scheduler says so in its reasons."""
        return next(
            (self._waiting_for(each.model) for each in self._asked.values() if _room_for(each.model, reason)), None
        )


def _room_for(model: str, reason: str) -> bool:
    return bool(model) and f"room for {model}" in reason
