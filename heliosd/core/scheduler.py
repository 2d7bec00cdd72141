"""Decides what runs. Has no clock, no device and no socket: events in, commands out.

Owned by exactly one loop (`Node.run`), so it needs no lock. The same events in the same order always give the same
commands.

The bound on waiting, which the property tests hold it to: a request whose model fits waits at most
`(k + 1) · (patience + longest lease + longest stop + longest start) + longest start`, where k is the number of other
models that older requests are waiting for. Three rules give it: the queue is served in order of arrival; what an
older request waits for is not given to a younger one that would start something; and a ready replica that stands in
the way drains once it has done so for `patience_s`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import assert_never

from heliosd.core import admission
from heliosd.core.eviction import Resident
from heliosd.core.gist import gist
from heliosd.core.ledger import Ledger
from heliosd.core.lifecycle import COMING, State
from heliosd.core.messages import (
    Command,
    Demand,
    DevicesFound,
    DevicesRead,
    DrainAsked,
    DrainReplica,
    Event,
    Grant,
    Hold,
    Limits,
    LimitsChanged,
    ModelsChanged,
    Note,
    PeersChanged,
    RefusalCode,
    Refuse,
    ReplicaBecameReady,
    ReplicaDied,
    ReplicaExited,
    RequestArrived,
    RequestReleased,
    StartReplica,
    StopAsked,
    StopReplica,
    Tick,
)
from heliosd.core.names import DeviceId, PeerName, ReplicaId, Ticket
from heliosd.core.placement import Fits, MustWait, NeverFits, place
from heliosd.core.replicas import Replica
from heliosd.core.snapshot import Snapshot, Waiting
from heliosd.core.units import format_bytes
from heliosd.core.usage import Usage

LONGEST_BACK_OFF_S = 60.0
DRIFT_WORTH_TELLING = 0.01
"""Of what was predicted; less is what the next estimate learns silently."""


@dataclass
class Queued:
    """A request that waits, and what it was told last."""

    request: RequestArrived
    demand: Demand
    told: str | None = None
    drain_at: float | None = None
    """When what stands in its way will be drained; None while nothing needs to be."""


@dataclass
class Failures:
    """Failed starts in a row of one model."""

    in_a_row: int = 0
    retry_at: float = 0.0
    cause: str = ""


@dataclass
class Scheduler:
    limits: Limits = field(default_factory=Limits)
    ledger: Ledger = field(default_factory=Ledger)
    queue: dict[Ticket, Queued] = field(default_factory=dict)
    """In order of arrival."""
    replicas: dict[ReplicaId, Replica] = field(default_factory=dict)
    failures: dict[str, Failures] = field(default_factory=dict)
    holders: dict[str, tuple[PeerName, ...]] = field(default_factory=dict)
    draining: bool = False
    usage: Usage = field(default_factory=Usage)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.ledger.safety_ratio = self.limits.safety_ratio

    def number_after(self, last: int) -> None:
        """Name replicas from `last + 1` on: a name that the journal has already tells of another life."""
        self._numbers = count(last + 1)

    def handle(self, event: Event) -> list[Command]:  # noqa: PLR0912 (one case for each event)
        """Take in what happened and say what to do about it."""
        commands: list[Command] = []
        match event:
            case RequestArrived():
                commands += self._arrived(event)
            case RequestReleased():
                commands += self._released(event)
            case ReplicaBecameReady():
                commands += self._became_ready(event)
            case ReplicaDied(replica=replica):
                self._died(replica)
            case ReplicaExited():
                commands += self._exited(event)
            case DevicesFound(devices=devices):
                self.ledger.devices = {device.id: device for device in devices}
            case DevicesRead():
                commands += self._read(event)
            case PeersChanged(holds=holds):
                models = sorted({model for _, held in holds for model in held})
                self.holders = {model: tuple(peer for peer, held in holds if model in held) for model in models}
            case StopAsked():
                commands += self._leave(event.replica, "an operator asked for it")
            case DrainAsked():
                commands += self._drain_all()
            case LimitsChanged(limits=limits, keep_alives=keep_alives):
                self.limits = limits
                self.ledger.safety_ratio = limits.safety_ratio
                self.failures.clear()
                for replica, keep_alive_s in keep_alives:
                    if replica in self.replicas:
                        self.replicas[replica].keep_alive_s = keep_alive_s
            case ModelsChanged():
                self.failures.clear()
            case Tick():
                pass
            case _:
                assert_never(event)
        return [*commands, *self._expire(event.at), *self._serve_queue(event.at)]

    @property
    def next_wakeup(self) -> float | None:
        """When `Tick` is due for something that only time brings about; None when nothing is."""
        awaited = self._awaited()
        times = [replica.expires_at for replica in self.replicas.values() if replica.demand.key not in awaited]
        times += [queued.drain_at for queued in self.queue.values() if queued.drain_at is not None]
        times += [
            queued.request.deadline_at for queued in self.queue.values() if queued.request.deadline_at is not None
        ]
        soonest = min(times, default=float("inf"))
        return None if soonest == float("inf") else soonest

    def snapshot(self, at: float) -> Snapshot:
        return Snapshot(
            at=at,
            devices=tuple(self.ledger.account(device) for device in self.ledger.devices),
            replicas=tuple(replica.status() for replica in self.replicas.values()),
            waiting=tuple(
                Waiting(ticket, queued.demand.model, queued.request.at, queued.told or "")
                for ticket, queued in self.queue.items()
            ),
            draining=self.draining,
        )

    # ---- what happened -------------------------------------------------------

    def _arrived(self, request: RequestArrived) -> list[Command]:
        refused = admission.refusal(
            request, draining=self.draining, queued=len(self.queue), limits=self.limits
        ) or self._backing_off(request)
        if refused:
            return [refused]
        if request.demand is None:
            forward = admission.elsewhere(
                request, self.holders.get(request.model, ()), f"{request.model} is not in this node's store"
            )
            return [forward or Refuse(request.ticket, RefusalCode.UNKNOWN_MODEL, f"cannot find model {request.model}")]
        self.queue[request.ticket] = Queued(request, request.demand)
        self.usage.asked(request.demand.model, request.at)
        return []

    def _backing_off(self, request: RequestArrived) -> Refuse | None:
        failed = self.failures.get(request.model)
        if failed is None or request.at >= failed.retry_at:
            return None
        left_s = failed.retry_at - request.at
        return Refuse(
            request.ticket,
            RefusalCode.ENGINE_FAILED,
            f"cannot start {request.model}: {failed.in_a_row} starts in a row failed; next try in {left_s:.0f} s",
            retry_after_s=left_s,
            cause=failed.cause,
        )

    def _released(self, event: RequestReleased) -> list[Command]:
        self.queue.pop(event.ticket, None)
        for replica in self.replicas.values():
            if event.ticket in replica.leases:
                replica.leases.remove(event.ticket)
                replica.last_used = event.at
                return self._stop_if_drained(replica)
        return []

    def _became_ready(self, event: ReplicaBecameReady) -> list[Command]:
        replica = self.replicas[event.replica]
        replica.measured = event.measured
        self.ledger.measure(replica.id, event.measured)
        self.failures.pop(replica.demand.model, None)
        if replica.state is State.STARTING:
            replica.become(State.READY)
            replica.ready_at = replica.last_used = event.at
            self.usage.started(replica.demand.model, event.at - replica.started_at)
        predicted_bytes, measured_bytes = replica.demand.per_device.total_bytes, event.measured.total_bytes
        if measured_bytes <= predicted_bytes * (1 + DRIFT_WORTH_TELLING):
            return []
        drift = (
            f"{replica.id} of {replica.demand.model} holds {format_bytes(measured_bytes)}, "
            f"{format_bytes(measured_bytes - predicted_bytes)} more than predicted"
        )
        return [Note(replica.demand.model, drift, warning=True)]

    def _died(self, replica_id: ReplicaId) -> None:
        """Who asks from now on gets a fresh replica; its bytes stay booked until it is really gone."""
        replica = self.replicas[replica_id]
        if replica.state in (State.READY, State.DRAINING):
            replica.become(State.FAILED)

    def _exited(self, event: ReplicaExited) -> list[Command]:
        replica = self.replicas.pop(event.replica)
        self.ledger.release(replica.id)
        was = replica.state
        if event.cause is None or was is State.STOPPING:
            return []
        if was is not State.FAILED:
            replica.become(State.FAILED)
        model = replica.demand.model
        doing = "serving" if was is State.FAILED else was
        note = Note(model, f"{replica.id} of {model} died while {doing}: {gist(event.cause)}", warning=True)
        if was is not State.STARTING:
            return [note]
        return [note, *self._start_failed(replica, event.cause, event.at)]

    def _start_failed(self, replica: Replica, cause: str, at: float) -> list[Command]:
        """Those who wait learn the cause at once; who comes soon after is told when to come back."""
        failed = self.failures.setdefault(replica.demand.model, Failures())
        failed.in_a_row += 1
        failed.cause = cause
        failed.retry_at = at + min(LONGEST_BACK_OFF_S, self.limits.retry_after_failure_s * 2 ** (failed.in_a_row - 1))
        waiting = [ticket for ticket, queued in self.queue.items() if replica.serves(queued.demand)]
        for ticket in waiting:
            del self.queue[ticket]
        return [
            Refuse(
                ticket,
                RefusalCode.ENGINE_FAILED,
                f"cannot start {replica.demand.model}: its engine failed while starting",
                retry_after_s=failed.retry_at - at,
                cause=cause,
            )
            for ticket in waiting
        ]

    def _read(self, event: DevicesRead) -> list[Command]:
        before = {device: self.ledger.healthy(device) for device in self.ledger.devices}
        ours = {pid: replica for replica, pids in event.ours for pid in pids}
        known = [reading for reading in event.readings if reading.device in self.ledger.devices]
        self.ledger.read(known, ours)
        notes: list[Command] = []
        for reading in known:
            if before[reading.device] and reading.fault:
                notes.append(Note(reading.device, f"device {reading.device} failed: {reading.fault}", warning=True))
            elif not before[reading.device] and not reading.fault:
                notes.append(Note(reading.device, f"device {reading.device} is back"))
        return notes

    def _drain_all(self) -> list[Command]:
        self.draining = True
        refused: list[Command] = [
            refusal
            for queued in self.queue.values()
            if (refusal := admission.refusal(queued.request, draining=True, queued=0, limits=self.limits))
        ]
        self.queue.clear()
        for replica in list(self.replicas):
            refused += self._leave(replica, "the node is draining")
        return refused

    # ---- what to do ------------------------------------------------------------

    def _expire(self, at: float) -> list[Command]:
        """What only time brings about: deadlines of requests, keep-alives of idle replicas."""
        commands: list[Command] = []
        for ticket, queued in list(self.queue.items()):
            deadline_at = queued.request.deadline_at
            if deadline_at is not None and at >= deadline_at:
                del self.queue[ticket]
                waited_s = at - queued.request.at
                reason = f"cannot serve {queued.demand.model} in time: waited {waited_s:.0f} s; {queued.told or ''}"
                commands.append(Refuse(ticket, RefusalCode.DEADLINE, reason.rstrip("; "), retry_after_s=30.0))
        awaited = self._awaited()
        for replica in list(self.replicas.values()):
            if at >= replica.expires_at and replica.demand.key not in awaited:
                commands += self._leave(replica.id, f"idle for {replica.keep_alive_s:.0f} s")
        return commands

    def _awaited(self) -> set[tuple[str, str]]:
        """The keys of the demands that wait: what serves them stays, though it is idle."""
        return {queued.demand.key for queued in self.queue.values()}

    def _serve_queue(self, at: float) -> list[Command]:
        """Go through the queue in order of arrival; equal models share one answer."""
        commands: list[Command] = []
        answers: dict[tuple[str, str], str] = {}
        claimed: set[DeviceId] = set()
        for ticket, queued in list(self.queue.items()):
            key = queued.demand.key
            replica = self._serving(queued.demand)
            if replica is not None and replica.state is State.READY:
                del self.queue[ticket]
                replica.leases.add(ticket)
                replica.last_used = at
                commands.append(Grant(ticket, replica.id, f"{replica.id} is ready"))
                continue
            if key not in answers:
                decided, answer = self._make_way(queued, replica, claimed, at)
                commands += decided
                if ticket not in self.queue:
                    continue
                answers[key] = answer
            if queued.told != answers[key]:
                queued.told = answers[key]
                commands.append(Hold(ticket, answers[key]))
        return commands

    def _serving(self, demand: Demand) -> Replica | None:
        """The replica that serves this demand or will; one that is on its way out does not."""
        matching = [replica for replica in self.replicas.values() if replica.serves(demand)]
        ready = next((replica for replica in matching if replica.state is State.READY), None)
        return ready or next((replica for replica in matching if replica.state in COMING), None)

    def _make_way(
        self, queued: Queued, coming: Replica | None, claimed: set[DeviceId], at: float
    ) -> tuple[list[Command], str]:
        """Start what the request needs, or say what it waits for. Adds to `claimed` what younger ones must leave."""
        queued.drain_at = None
        if coming is not None:
            return [], f"{coming.id} is {coming.state}"
        request, demand = queued.request, queued.demand
        match place(demand, self.ledger, self.residents(at), frozenset(claimed)):
            case NeverFits(reason):
                del self.queue[request.ticket]
                forward = admission.elsewhere(request, self.holders.get(request.model, ()), "it can never fit here")
                return [forward or Refuse(request.ticket, RefusalCode.CANNOT_FIT, f"cannot fit: {reason}")], reason
            case Fits(devices=devices, victims=(), reason=reason):
                return self._start(demand, devices, at, reason)
            case Fits(devices=devices, victims=victims, reason=reason):
                claimed.update(devices)
                return self._all_leave(victims, f"room for {demand.model}: {reason}"), f"making room: {reason}"
            case MustWait(devices=devices, drain=victims, reason=reason):
                claimed.update(devices)
                if victims:
                    queued.drain_at = self._drain_at(request, victims)
                    if at >= queued.drain_at:
                        queued.drain_at = None
                        why = f"in the way of {demand.model} for {self.limits.patience_s:.0f} s"
                        return self._all_leave(victims, why), f"making room: {reason}"
                return [], reason

    def _drain_at(self, request: RequestArrived, victims: Iterable[ReplicaId]) -> float:
        """A replica may serve others for the time of patience, counted from when it was ready to serve at all."""
        ready = (self.replicas[victim].ready_at or 0.0 for victim in victims)
        return max(request.at, *ready) + self.limits.patience_s

    def residents(self, at: float) -> list[Resident]:
        """The replicas as the policies see them, with what is booked for each and what its loss would cost."""
        booked = [(replica, self.ledger.promised[replica.id][1]) for replica in self.replicas.values()]
        return [
            replica.resident(each, self.usage.loss_s(replica.demand.model, each.total_bytes * len(replica.devices), at))
            for replica, each in booked
        ]

    def _start(
        self, demand: Demand, devices: tuple[DeviceId, ...], at: float, reason: str
    ) -> tuple[list[Command], str]:
        replica = Replica(
            ReplicaId(f"r{next(self._numbers)}"), demand, devices, started_at=at, keep_alive_s=demand.keep_alive_s
        )
        self.ledger.book(replica.id, devices, demand.per_device)
        self.replicas[replica.id] = replica
        replica.become(State.STARTING)
        return [StartReplica(replica.id, demand, devices, reason)], f"{replica.id} is {replica.state}"

    def _all_leave(self, victims: Iterable[ReplicaId], reason: str) -> list[Command]:
        return [command for victim in victims for command in self._leave(victim, reason)]

    def _leave(self, replica_id: ReplicaId, reason: str) -> list[Command]:
        """Send a replica on its way out, as gently as its state allows. Harmless when it already is."""
        replica = self.replicas.get(replica_id)
        if replica is None:
            return []
        if replica.state is State.STARTING:
            replica.become(State.STOPPING)
            return [StopReplica(replica.id, reason)]
        if replica.state is State.READY:
            replica.become(State.DRAINING)
            return [DrainReplica(replica.id, reason), *self._stop_if_drained(replica)]
        return []

    def _stop_if_drained(self, replica: Replica) -> list[Command]:
        if replica.leases or replica.state is not State.DRAINING:
            return []
        replica.become(State.STOPPING)
        return [StopReplica(replica.id, "no lease is left")]
