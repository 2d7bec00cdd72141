"""Makes spans of what the scheduler is told and decides: the stages of requests, and what replicas go through for them.

Who asked for a start, or has room made for him, finds it in his own trace. What nobody waits for, such as a start ahead
of requests, has a trace of its own, and the requests that it serves later link to it.
"""

from collections.abc import Callable, Iterable

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
from heliosd.telemetry.tracing import Attributes, Tracing, now_ns
from heliosd.telemetry.tracing_current import request_trace
from heliosd.telemetry.tracing_replicas import ReplicaSpans
from heliosd.telemetry.tracing_waiting import Waiting

_NAMES = {SleepReplica: "sleep", DrainReplica: "drain", StopReplica: "stop"}


class NodeSpans:
    """Told by the node of requests, of every event, and of the commands that it led to."""

    def __init__(self, tracing: Tracing, now: Callable[[], float]) -> None:
        """`now` is the node's clock."""
        self._waiting = Waiting()
        self._replicas = ReplicaSpans(tracing, now)
        self._thinking_ns = 0
        """Since when the scheduler thinks about the last event."""

    # ---- the request of this task ----------------------------------------------

    def asked(self) -> None:
        """It asks for a replica; what the model takes is looked up."""
        self.stage("estimate")

    def estimated(self, ticket: Ticket, model: str, demand: Demand | None) -> None:
        """It is known what the model takes, if the store has it; the scheduler is about to be asked.

        A release of the ticket follows, however it ends.
        """
        if (trace := request_trace.get()) is None:
            return
        self._waiting.asks(ticket, model, trace)
        takes: Attributes = {}
        if demand is not None:
            takes = {
                "helios.predicted_bytes": demand.per_device.total_bytes,
                "helios.device_count": demand.device_count,
            }
        trace.note({"helios.model": model, **takes})
        trace.stage("admission", takes)

    def stage(self, name: str) -> None:
        """Something else is done for it now."""
        if trace := request_trace.get():
            trace.stage(name)

    # ---- what others note ------------------------------------------------------

    def trace_of(self, ticket: str | None, replica: str | None) -> str | None:
        """The id of the trace that tells of this request, or of what the replica goes through; None: it is not kept."""
        if ticket and (asked := self._waiting.get(Ticket(ticket))):
            return asked.trace.id if asked.trace.kept else None
        return self._replicas.trace_of(ReplicaId(replica)) if replica else None

    def traceparent_of(self, replica: ReplicaId) -> str:
        """Of a start under way, for its engine."""
        return self._replicas.traceparent_of(replica)

    def started_from(self, replica: ReplicaId, tier: str) -> None:
        """In which tier the weights are that a start reads."""
        self._replicas.note(replica, {"helios.tier": tier})

    # ---- events and commands ---------------------------------------------------

    def happened(self, event: Event, timeline: Timeline | None) -> None:
        """An event, before the scheduler takes it in. `timeline`: of the start of the replica that it tells of."""
        self._thinking_ns = now_ns()
        match event:
            case ReplicaBecameReady(replica=replica, measured=measured):
                self._replicas.phases(replica, timeline)
                self._replicas.over(replica, {"helios.measured_bytes": measured.total_bytes})
            case ReplicaSlept(replica=replica, level=level, residue=residue, host_bytes=host_bytes):
                held: Attributes = {"helios.residue_bytes": residue.total_bytes, "helios.host_bytes": host_bytes}
                self._replicas.over(replica, {"helios.sleep_level": level, **held})
            case ReplicaWoke(replica=replica, measured=measured):
                self._replicas.over(replica, {"helios.measured_bytes": measured.total_bytes})
            case ReplicaExited(replica=replica, cause=cause):
                self._replicas.phases(replica, timeline)
                self._replicas.gone(replica, cause)
            case _:
                pass

    def decided(self, event: Event, commands: Iterable[Command], scheduler: Scheduler) -> None:
        """What the scheduler answered to an event that `happened`."""
        for command in commands:
            match command:
                case Grant(ticket, replica, reason):
                    self._grant(ticket, replica, reason)
                case Hold(ticket, reason, position, eta_s):
                    if asked := self._waiting.get(ticket):
                        place: Attributes = {"helios.position": position, "helios.eta_s": eta_s}
                        asked.trace.wait({"helios.reason": reason, **place})
                case Forward(ticket, peer, reason):
                    self._answered(ticket, "forward", {"helios.peer": peer, "helios.reason": reason})
                case Refuse(ticket, code, reason):
                    self._answered(ticket, "refuse", {"helios.code": code, "helios.reason": reason})
                case StartReplica(demand=demand):
                    self._replicas.start(command, scheduler, self._waiting.longest(demand.model), self._thinking_ns)
                case WakeReplica(replica, reason):
                    there = scheduler.replicas.get(replica)
                    asked = self._waiting.longest(there.demand.model) if there else None
                    self._replicas.begin("wake", replica, reason, scheduler, asked)
                case SleepReplica(replica, _, reason) | DrainReplica(replica, reason) | StopReplica(replica, reason):
                    cause = self._waiting.cause(reason)
                    self._replicas.begin(_NAMES[type(command)], replica, reason, scheduler, cause)
                case _:
                    pass
        if isinstance(event, RequestReleased):
            self._waiting.released(event.ticket)

    def _grant(self, ticket: Ticket, replica: ReplicaId, reason: str) -> None:
        asked, start = self._waiting.get(ticket), self._replicas.start_of(replica)
        if asked is None:
            return
        own = start is not None and start.trace_id == asked.trace.root.get_span_context().trace_id
        asked.waiting = False
        asked.trace.note({"helios.replica": replica})
        what: Attributes = {"helios.replica": replica, "helios.reason": reason}
        asked.trace.stage("grant", what, link=None if own else start)

    def _answered(self, ticket: Ticket, name: str, attributes: Attributes) -> None:
        if asked := self._waiting.get(ticket):
            asked.waiting = False
            asked.trace.stage(name, attributes)
