"""Decides what runs. Has no clock, no device and no socket: events in, commands out.

Owned by exactly one loop (`Node.run`), so it needs no lock. The same events in the same order always give the same
commands.

Requests are served in the order of `core/queue.py`: first those that have waited for `overtaking_s`, oldest first; then
by class, by the round of their key, by arrival. The bound on waiting, which the property tests hold it to: a request
whose model fits, and that is next when it comes or has waited for `overtaking_s`, waits from then on at most
`(k + 1) · (patience + longest lease + longest stop or sleep + longest start or waking) + longest start + q · longest
lease`, where k is the number of other models that requests before it are waiting for, and q the number of requests
before it for its own model divided by what a replica may work on at once, rounded up. Three rules give it: what a
request waits for is not given to one behind it that would start something; a ready replica that stands in the way
drains once it has done so for `patience_s`; and what drains or sleeps takes nobody new.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import assert_never

from heliosd.core import admission
from heliosd.core.ahead import Ahead
from heliosd.core.defragment import Plan, defragment
from heliosd.core.drift import DriftWatch
from heliosd.core.eviction import Resident
from heliosd.core.gist import gist
from heliosd.core.headroom import HeadroomWatch
from heliosd.core.ledger import Ledger
from heliosd.core.lifecycle import COMING, State
from heliosd.core.messages import (
    Command,
    Demand,
    DemandsKnown,
    DevicesFound,
    DevicesRead,
    DrainAsked,
    Event,
    Forward,
    Grant,
    Hold,
    Limits,
    LimitsChanged,
    ModelsChanged,
    ModelsKnown,
    ModelsWanted,
    Note,
    PeersChanged,
    RefusalCode,
    Refuse,
    ReplicaBecameReady,
    ReplicaDied,
    ReplicaExited,
    ReplicaPressed,
    ReplicaProgressed,
    ReplicaSlept,
    ReplicaWoke,
    RequestArrived,
    RequestReleased,
    SleepAsked,
    StopAsked,
    Tick,
    UsageSeeded,
)
from heliosd.core.names import DeviceId, PeerName, ReplicaId, Ticket
from heliosd.core.neighbours import UNKNOWN_WAIT_S, Neighbours
from heliosd.core.placement import Fits, MustWait, NeverFits, place
from heliosd.core.queue import Queue, Queued
from heliosd.core.replicas import Replica
from heliosd.core.rooms import Room, expected, find_room, takes_s
from heliosd.core.routing import choose
from heliosd.core.shedding import overdue
from heliosd.core.snapshot import Snapshot, Waiting
from heliosd.core.start_forecast import Expected
from heliosd.core.usage import Usage
from heliosd.core.warm_pool import Key, WarmPool

MOVES_LOOKED_AT = 200
"""In some milliseconds; a request waits meanwhile."""
WORTH_MOVING_S = 1.0
"""Victims whose loss is expected to cost less are not moved elsewhere: to look for a place would not pay."""
STOP_S = 1.0
"""What a stop is taken to last, when a client is told how long it will wait."""
WORTH_NAMING_S = 1.0
"""A phase of a start that is expected to take less is not told to who waits."""
_UNSETTLED = frozenset({State.SLEEPING, State.STOPPING, State.FAILED})
"""Nobody knows at a reading how much of its memory such a replica has given back already."""
KILLED = "killed by SIGKILL"
"""In the cause of a death that was not the engine's own doing."""
PLACES_TRIED = 2
"""A model whose starts failed on so many places in a row is not tried on another."""


@dataclass
class Scheduler:
    limits: Limits = field(default_factory=Limits)
    ledger: Ledger = field(default_factory=Ledger)
    usage: Usage = field(default_factory=Usage)
    holders: dict[str, tuple[PeerName, ...]] = field(default_factory=dict)
    neighbours: Neighbours = field(default_factory=Neighbours)
    draining: bool = False
    _queue: Queue = field(default_factory=Queue)
    drift: DriftWatch = field(default_factory=DriftWatch)
    headroom: HeadroomWatch = field(default_factory=HeadroomWatch)
    _now: float = 0.0
    _seen: dict[tuple[float, bool], list[Resident]] = field(default_factory=dict)
    """Residents that were worked out since anything changed."""
    ahead: Ahead = field(default_factory=Ahead)
    pool: WarmPool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = WarmPool(self.limits, self.ledger, self.usage)
        self._limit(self.limits)

    @property
    def queue(self) -> dict[Ticket, Queued]:
        """Who waits, in order of arrival."""
        return self._queue.waiting

    @property
    def replicas(self) -> dict[ReplicaId, Replica]:
        return self.pool.replicas

    def _limit(self, limits: Limits) -> None:
        self.limits = self.pool.limits = limits
        self.ledger.safety_ratio = limits.safety_ratio
        self.ledger.host_bytes = limits.host_bytes
        self.pool.breakers.base_s = limits.retry_after_failure_s

    def number_after(self, last: int) -> None:
        """Name replicas from `last + 1` on: a name that the journal has already tells of another life."""
        self.pool.numbers = count(last + 1)

    def handle(self, event: Event) -> list[Command]:
        """Take in what happened and say what to do about it."""
        self._now = at = event.at
        self._seen.clear()
        commands = self._take_in(event)
        commands += self._too_late(at)
        commands += self._keep_wanted(at)
        self._seen.clear()
        commands += self._serve_queue(at)
        self._seen.clear()
        commands += self._start_ahead(at)
        return [*commands, *self._expire(at)]

    def _take_in(self, event: Event) -> list[Command]:  # noqa: PLR0912 (one case for each event)
        match event:
            case RequestArrived():
                return self._arrived(event)
            case RequestReleased():
                return self._released(event)
            case ReplicaBecameReady():
                return self.pool.became_ready(event)
            case ReplicaProgressed(at=at, replica=replica, phase=phase):
                if replica in self.replicas:
                    self.replicas[replica].progressed(phase, at)
            case ReplicaSlept():
                self.ahead.preloads.gone(event.replica, event.at)
                return self.pool.slept(event)
            case ReplicaWoke():
                return self.pool.woke(event)
            case ReplicaPressed():
                return [*self.pool.pressed(event), *self._shed(event.at), *self._grow(event)]
            case ReplicaDied(replica=replica):
                self._died(replica)
            case ReplicaExited():
                return self._exited(event)
            case DevicesFound(devices=devices):
                self.ledger.devices = {device.id: device for device in devices}
            case DevicesRead():
                return self._read(event)
            case PeersChanged(holds=holds):
                models = sorted({model for _, held in holds for model in held})
                self.holders = {model: tuple(peer for peer, held in holds if model in held) for model in models}
                self.neighbours.told(event)
            case ModelsWanted(wanted=wanted):
                self.pool.wanted = {each.demand.key: each for each in wanted}
            case SleepAsked():
                return self._sleep_asked(event)
            case StopAsked():
                if event.replica in self.replicas:
                    self.ahead.preloads.bar(self.replicas[event.replica].demand.model)
                return self.pool.step_down(event.replica, event.at, "an operator asked for it")
            case DrainAsked():
                return self._drain_all(event.at)
            case LimitsChanged(limits=limits, keep_alives=keep_alives):
                self._limit(limits)
                self.ahead.demands.clear()
                self._forget_failures()
                for replica, keep_alive_s in keep_alives:
                    if replica in self.replicas:
                        self.replicas[replica].keep_alive_s = keep_alive_s
            case ModelsChanged():
                self._forget_failures()
                self.ahead.demands.clear()
            case ModelsKnown(sizes=sizes):
                self.pool.sizes = {model: self.pool.sizes.get(model, n_bytes) for model, n_bytes in sizes}
            case UsageSeeded(at=at, epoch_offset_s=offset_s, models=known, starts=starts):
                self.usage.seeded(at, offset_s, known, starts)
            case DemandsKnown(demands=demands):
                self.ahead.know(demands)
            case Tick():
                pass
            case _:
                assert_never(event)
        return []

    def _forget_failures(self) -> None:
        self.pool.breakers.forget()
        self.pool.learned.clear()
        self.pool.sleepless.clear()

    @property
    def next_wakeup(self) -> float | None:
        """When `Tick` is due for something that only time brings about; None when nothing is."""
        awaited, pinned = self._awaited(), self.pool.pinned()
        times = [
            self._expires_at(replica)
            for replica in self.replicas.values()
            if replica.demand.key not in awaited and replica.id not in pinned
        ]
        for queued in self.queue.values():
            times += [when for when in (queued.drain_at, queued.request.deadline_at) if when is not None]
        if len(self.queue) > 1:
            times.append(self._queue.ages_at(self._now, self.limits.overtaking_s))
        for wanted in self.pool.missing():
            breakers = self.pool.breakers.open_for(wanted.demand.model, self._now).values()
            times += [each.retry_at for each in breakers if not each.probing]
        if not self.draining:
            times.append(self.ahead.next_look(self.pool))
        soonest = min(times, default=float("inf"))
        return None if soonest == float("inf") else soonest

    def snapshot(self, at: float) -> Snapshot:
        pinned = self.pool.pinned()
        return Snapshot(
            at=at,
            devices=tuple(self.ledger.account(device) for device in self.ledger.devices),
            replicas=tuple(replica.status(replica.id in pinned) for replica in self.replicas.values()),
            waiting=tuple(
                Waiting(
                    queued.request.ticket,
                    queued.demand.model,
                    queued.request.at,
                    queued.told or "",
                    position,
                    queued.eta_s,
                    queued.request.terms.priority,
                    queued.request.terms.key,
                )
                for position, queued in enumerate(self._queue.ordered(at, self.limits.overtaking_s))
            ),
            draining=self.draining,
            host=self.ledger.host_account(),
            preloads=self.ahead.preloads.count(),
            breakers=self.pool.breakers.status(at),
        )

    # ---- what happened -------------------------------------------------------

    def _arrived(self, request: RequestArrived) -> list[Command]:
        refused = admission.refusal(request, draining=self.draining, queued=len(self.queue), limits=self.limits)
        last: Queued | None = None
        if refused and refused.code is RefusalCode.QUEUE_FULL and request.demand is not None:
            last = self._last_in_line(request)
        if refused and last is None:
            return [refused]
        if request.demand is None:
            forward = admission.elsewhere(
                request, self.holders.get(request.model, ()), f"{request.model} is not in this node's store"
            )
            unknown = Refuse(request.ticket, RefusalCode.UNKNOWN_MODEL, f"cannot find model {request.model}")
            return [forward or unknown]
        queued = self._queue.add(request, request.demand)
        self.usage.asked(request.demand.model, request.at)
        self.ahead.know([request.demand])
        self.ahead.preloads.asked(request.demand.model)
        self.pool.sizes[request.demand.model] = request.demand.per_device.total_bytes
        shed = self._shed(request.at, queued, without=last)
        return shed if shed or last is None else [self._make_place(last, request)]

    def _last_in_line(self, request: RequestArrived) -> Queued | None:
        """Who gives his place in a full line to a request of a higher class; None when nobody is of a lower one."""
        if self.draining or len(self.queue) < self.limits.queue_length or not self.queue:
            return None
        last = self._queue.ordered(request.at, self.limits.overtaking_s)[-1]
        return last if last.request.terms.priority < request.terms.priority else None

    def _make_place(self, last: Queued, request: RequestArrived) -> Command:
        self._queue.leave(last.request.ticket)
        reason = (
            f"cannot keep the request for {last.request.model} waiting: {self.limits.queue_length} are, which is the "
            f"limit, and one of class {request.terms.priority.name.lower()} came"
        )
        return Refuse(last.request.ticket, RefusalCode.QUEUE_FULL, reason, retry_after_s=5.0)

    def _grow(self, event: ReplicaPressed) -> list[Command]:
        """Restart a replica with a larger KV cache, where that is worth the seconds: many wait for it, and nobody for
        the room that it would take."""
        replica = self.replicas.get(event.replica)
        if replica is None or replica.state is not State.READY:
            return []
        waiting = [each for each in self.queue.values() if each.demand.key == replica.demand.key]
        if len(waiting) < len(self.queue):
            return []
        return self.pool.grow(replica, event.at, len(waiting))

    def _released(self, event: RequestReleased) -> list[Command]:
        self._queue.leave(event.ticket)
        for replica in self.replicas.values():
            if event.ticket in replica.leases:
                held_s = replica.release(event.ticket, event.at)
                self.usage.released(replica.demand.model, held_s)
                return self.pool.drained(replica, event.at)
        return []

    def sleepless(self, replica_id: ReplicaId, at: float) -> str | None:
        """Why a replica cannot be put to sleep; None when it can, or sleeps."""
        replica = self.replicas.get(replica_id)
        if replica is None or replica.state in (State.SLEEPING, State.ASLEEP):
            return None
        if replica.state is not State.READY:
            return f"it is {replica.state}"
        if not self.limits.sleep:
            return "pool.sleep is false"
        if not replica.sleep_levels:
            return "its engine cannot sleep on its devices"
        if not self.pool.sleep_level(replica, at):
            return "its last sleep went wrong, or host memory has no room for its weights (pool.host_memory)"
        return None

    def _sleep_asked(self, event: SleepAsked) -> list[Command]:
        replica = self.replicas.get(event.replica)
        if replica is None or replica.state is not State.READY:
            return []
        if why := self.sleepless(replica.id, event.at):
            return [Note(replica.demand.model, f"cannot put {replica.id} to sleep: {why}", warning=True)]
        self.ahead.preloads.bar(replica.demand.model)
        return self.pool.step_down(replica.id, event.at, "an operator asked for it", sleep=True)

    def _died(self, replica_id: ReplicaId) -> None:
        """Who asks from now on gets a fresh replica; its bytes stay booked until it is really gone."""
        replica = self.replicas.get(replica_id)
        if replica is None:  # another has taken its engine over, and learns of it
            return
        if State.FAILED is not replica.state is not State.STOPPING:
            replica.died_while = replica.state
            replica.become(State.FAILED)

    def _exited(self, event: ReplicaExited) -> list[Command]:
        if event.replica not in self.replicas:  # another has taken its engine over
            return []
        replica = self.pool.gone(event.replica)
        self.ahead.preloads.gone(replica.id, event.at)
        was = replica.died_while or replica.state
        if event.cause is None or was is State.STOPPING:
            return []
        if replica.state is not State.FAILED:
            replica.become(State.FAILED)
        model = replica.demand.model
        doing = "serving" if replica.died_while in (State.READY, State.DRAINING) else was
        notes: list[Command] = [
            Note(model, f"{replica.id} of {model} died while {doing}: {gist(event.cause)}", warning=True)
        ]
        notes += self.pool.exited(replica, event.cause, was, event.at)
        if was is not State.STARTING:
            return notes
        return [*notes, *self._start_failed(replica, event.cause, event.at, learned=len(notes) > 1)]

    def _start_failed(self, replica: Replica, cause: str, at: float, *, learned: bool) -> list[Command]:
        """Whoever waits is served by another attempt where that is not the same again: with more memory booked, on
        other devices, or because somebody killed it. Otherwise they learn the cause at once, and who comes soon after
        is told when to come back."""
        model = replica.demand.model
        breaker = self.pool.breakers.start_failed(model, replica.devices, at, cause)
        if breaker.in_a_row == 1 and (learned or KILLED in cause):
            breaker.retry_at = at
            return []
        if self._place_for(replica.demand, at) and len(self.pool.breakers.open_for(model, at)) < PLACES_TRIED:
            return []
        waiting = [ticket for ticket, queued in self.queue.items() if replica.serves(queued.demand)]
        for ticket in waiting:
            self._queue.leave(ticket)
        reason = f"cannot start {model}: its engine failed while starting"
        return [
            Refuse(ticket, RefusalCode.ENGINE_FAILED, reason, retry_after_s=breaker.retry_at - at, cause=cause)
            for ticket in waiting
        ]

    def _place_for(self, demand: Demand, at: float) -> bool:
        """Whether there is a place where its breaker is not open."""
        barred = frozenset(self.pool.breakers.open_for(demand.model, at))
        return not isinstance(place(self.pool.adjusted(demand), self.ledger, (), barred=barred), NeverFits)

    def _read(self, event: DevicesRead) -> list[Command]:
        ours = {pid: replica for replica, pids in event.ours for pid in pids if replica in self.replicas}
        faults_before = {device: self.ledger.healthy(device) for device in self.ledger.devices}
        leaving = frozenset(each.id for each in self.replicas.values() if each.state in _UNSETTLED)
        known = [reading for reading in event.readings if reading.device in self.ledger.devices]
        self.ledger.read(known, ours, leaving)
        if event.host is not None:
            self.ledger.host = event.host
        notes: list[Command] = []
        for device, healthy in faults_before.items():
            if healthy and not self.ledger.healthy(device):
                fault = self.ledger.readings[device].fault
                notes.append(Note(device, f"device {device} failed: {fault}", warning=True))
            elif not healthy and self.ledger.healthy(device):
                notes.append(Note(device, f"device {device} is back"))
        return [
            *notes,
            *self.drift.look(self.ledger),
            *self.headroom.look(self.ledger, event.at),
            *self.pool.relieve_host(event.at),
        ]

    def _drain_all(self, at: float) -> list[Command]:
        self.draining = True
        self.pool.wanted.clear()
        refused: list[Command] = [
            refusal
            for queued in self.queue.values()
            if (refusal := admission.refusal(queued.request, draining=True, queued=0, limits=self.limits))
        ]
        self.queue.clear()
        for replica in list(self.replicas):
            refused += self.pool.step_down(replica, at, "the node is draining")
        return refused

    # ---- what to do ------------------------------------------------------------

    def _too_late(self, at: float) -> list[Command]:
        """Requests whose deadline has come."""
        commands: list[Command] = []
        for ticket, queued in list(self.queue.items()):
            deadline_at = queued.request.deadline_at
            if deadline_at is not None and at >= deadline_at:
                self._queue.leave(ticket)
                waited_s = at - queued.request.at
                reason = f"cannot serve {queued.demand.model} in time: waited {waited_s:.0f} s; {queued.told or ''}"
                commands.append(Refuse(ticket, RefusalCode.DEADLINE, reason.rstrip("; "), retry_after_s=30.0))
        return commands

    def _expire(self, at: float) -> list[Command]:
        """Replicas that were idle, or asleep, for as long as they are kept."""
        commands: list[Command] = []
        awaited, pinned = self._awaited(), self.pool.pinned()
        for replica in list(self.replicas.values()):
            if at >= self._expires_at(replica) and replica.demand.key not in awaited and replica.id not in pinned:
                idle_s = at - replica.last_used if replica.state is State.ASLEEP else replica.keep_alive_s
                commands += self.pool.step_down(replica.id, at, f"idle for {idle_s:.0f} s", sleep=True)
        return commands

    def _expires_at(self, replica: Replica) -> float:
        """When it has been idle, or asleep, for so long that it takes a step down the ladder."""
        if replica.state is State.ASLEEP and replica.slept_at is not None:
            return replica.slept_at + self.limits.asleep_s
        return replica.expires_at

    def _awaited(self) -> set[Key]:
        """The keys of the demands that wait: what serves them stays, though it is idle."""
        return {queued.demand.key for queued in self.queue.values()}

    def _keep_wanted(self, at: float) -> list[Command]:
        """Start or wake what an operator pinned, where there is room or something idle to make it."""
        commands: list[Command] = []
        for wanted in () if self.draining else list(self.pool.missing()):
            asleep = next((each for each in self.pool.of(wanted.demand) if each.state is State.ASLEEP), None)
            demand = self.pool.adjusted(wanted.demand)
            room = self._find_room(demand, asleep, frozenset(), at)
            match room.at:
                case Fits(devices=devices, victims=(), reason=reason):
                    commands += self._bring(room, demand, devices, asleep, at, f"pinned; {reason}")[1]
                case Fits(victims=victims, reason=reason):
                    why = f"room for {demand.model}, which is pinned: {reason}"
                    commands += self._all_step_down(victims, at, why, sleep=room.sleep)
                case _:
                    pass
        return commands

    def _start_ahead(self, at: float) -> list[Command]:
        """Start what is likely to be asked for."""
        commands: list[Command] = []
        coming = {each.demand.key for each in self.replicas.values() if each.state in COMING}
        waits = bool(self._awaited() - coming)
        for sleeper, why in () if self.draining else self.ahead.sleepers(at, self.pool, requests_wait=waits):
            whole_bytes = sleeper.demand.per_device.total_bytes * len(sleeper.devices)
            self.ahead.preloads.started(sleeper.id, sleeper.demand.model, whole_bytes, at)
            commands.append(self.pool.wake(sleeper, at, f"ahead of requests: {why}"))
        for each in () if self.draining else self.ahead.proposals(at, self.pool, requests_wait=waits):
            if each.victims:
                why = f"room for {each.demand.model}, ahead of requests: {each.reason}"
                commands += self._all_step_down(each.victims, at, why, sleep=False)
            else:
                replica, started = self.pool.start(each.demand, each.devices, at, f"ahead of requests: {each.reason}")
                whole_bytes = replica.demand.per_device.total_bytes * len(replica.devices)
                self.ahead.preloads.started(replica.id, replica.demand.model, whole_bytes, at)
                commands.append(started)
        return commands

    def _serve_queue(self, at: float) -> list[Command]:
        """Go through the queue in its order; equal models share one answer."""
        commands: list[Command] = []
        answers: dict[Key, tuple[str, float | None]] = {}
        claimed: set[DeviceId] = set()
        ahead: dict[Key, int] = {}
        must_wait: set[Key] = set()
        for place_in_line, queued in enumerate(self._queue.ordered(at, self.limits.overtaking_s)):
            ticket, key = queued.request.ticket, queued.demand.key
            queued.drain_at = None
            prefix = queued.request.terms.prefix
            replica = choose((each for each in self.pool.of(queued.demand) if each.open), prefix)
            if replica is not None:
                self._queue.served(queued)
                replica.grant(ticket, at, prefix)
                self._seen.clear()
                commands.append(Grant(ticket, replica.id, f"{replica.id} is ready"))
                continue
            if key not in answers:
                decided, reason, eta_s = self._make_way(queued, claimed, at)
                commands += decided
                if decided:
                    self._seen.clear()
                elif all(each.state is State.ASLEEP for each in self.pool.of(queued.demand)):
                    must_wait.add(key)
                if ticket not in self.queue:
                    continue
                answers[key] = reason, eta_s
            reason, eta_s = answers[key]
            before = ahead.get(key, -1) + 1
            eta_s = None if eta_s is None else eta_s + self._turns_s(queued.demand, before)
            if key in must_wait and before and (forward := self._passed_on(queued, ([], reason, eta_s))):
                commands.append(forward)
                continue
            ahead[key] = before
            if queued.news(at, reason, place_in_line, eta_s):
                commands.append(Hold(ticket, reason, place_in_line, eta_s))
        return commands

    def _turns_s(self, demand: Demand, before: int) -> float:
        """How long those before take who wait for the same model."""
        return (before // max(1, demand.max_num_seqs)) * self.usage.lease(demand.model)

    def _make_way(self, queued: Queued, claimed: set[DeviceId], at: float) -> tuple[list[Command], str, float | None]:
        """Start or wake what the request needs, or say what it waits for, and how long probably.

        Adds to `claimed` what those behind it must leave.
        """
        demand = queued.demand
        own = self.pool.of(demand)
        if coming := next((each for each in own if each.state in COMING), None):
            return [], self._coming(coming), self._ready_in(coming, at)
        if falling := next((each for each in own if each.state is State.SLEEPING), None):
            return [], f"{falling.id} is falling asleep, then it wakes", self._ready_in(falling, at)
        if full := [each for each in own if each.state is State.READY]:
            return self._one_more(queued, full, claimed, at)
        if barred := self._barred(queued, at):
            return barred, "", None
        asleep = next((each for each in own if each.state is State.ASLEEP), None)
        ours = set(claimed)
        found = self._room_for(queued, self.pool.adjusted(demand), asleep, ours, at)
        if forward := self._passed_on(queued, found):
            return [forward], "", None
        claimed |= ours
        return found

    def _passed_on(self, queued: Queued, found: tuple[list[Command], str, float | None]) -> Forward | None:
        """A peer may be the better place for what can only wait here, or not even that."""
        decided, why, eta_s = found
        request, demand = queued.request, queued.demand
        never = any(isinstance(each, Refuse | Forward) for each in decided)
        if decided and not never:
            return None
        wait_s = float("inf") if never else UNKNOWN_WAIT_S if eta_s is None else eta_s
        lease_s, reload_s = self.usage.lease(demand.model), self._takes_s(demand, None)
        there = self.neighbours.better(request, demand, why, wait_s, reload_s, lease_s)
        if there is None:
            return None
        self.neighbours.passed(there.peer)
        self._queue.leave(request.ticket)
        return Forward(request.ticket, there.peer, there.reason)

    def _room_for(
        self, queued: Queued, demand: Demand, asleep: Replica | None, claimed: set[DeviceId], at: float
    ) -> tuple[list[Command], str, float | None]:
        request = queued.request
        reload_s = self._takes_s(demand, asleep)
        room = self._find_room(demand, asleep, frozenset(claimed), at)
        match room.at:
            case NeverFits(reason):
                self._queue.leave(request.ticket)
                forward = admission.elsewhere(request, self.holders.get(request.model, ()), "it can never fit here")
                return (
                    [forward or Refuse(request.ticket, RefusalCode.CANNOT_FIT, f"cannot fit: {reason}")],
                    reason,
                    None,
                )
            case Fits(devices=devices, victims=(), reason=reason):
                replica, commands = self._bring(room, demand, devices, asleep, at, reason)
                return commands, f"{replica.id} is {replica.state}", reload_s
            case Fits(victims=victims) if cast := self._cast(
                demand, victims, room.sleep, reload_s, frozenset(claimed), at
            ):
                replica, started = cast
                return [started], f"{replica.id} is {replica.state}", self._swap_s(demand, reload_s)
            case Fits(devices=devices, victims=victims, reason=reason):
                if plan := self._moves(demand, victims, frozenset(claimed), at):
                    claimed.update(plan.devices)
                    return self._move(plan, demand, at), f"making room: {plan.reason}", STOP_S + reload_s
                claimed.update(devices)
                leave = self._all_step_down(victims, at, f"room for {demand.model}: {reason}", sleep=room.sleep)
                return leave, f"making room: {reason}", STOP_S + reload_s
            case MustWait(devices=devices, drain=victims, reason=reason):
                claimed.update(devices)
                if not victims:
                    return [], reason, STOP_S + reload_s if devices else None
                queued.drain_at = self._drain_at(request, victims, at)
                lease_s = max(self.usage.lease(self.replicas[each].demand.model) for each in victims)
                if at >= queued.drain_at:
                    queued.drain_at = None
                    why = f"in the way of {demand.model} for {self.limits.patience_s:.0f} s"
                    leave = self._all_step_down(victims, at, why, sleep=room.sleep)
                    return leave, f"making room: {reason}", lease_s + STOP_S + reload_s
                return [], reason, queued.drain_at - at + lease_s + STOP_S + reload_s

    def _cast(
        self,
        demand: Demand,
        victims: tuple[ReplicaId, ...],
        sleep: bool,
        reload_s: float,
        claimed: frozenset[DeviceId],
        at: float,
    ) -> tuple[Replica, Command] | None:
        """Have an idle replica of the same mould become this model, if that costs fewer seconds than to send the
        victims away and start: those that its own loss is expected to cost included."""
        barred = self.pool.breakers.open_for(demand.model, at)
        able = {each.id: each for each in self.replicas.values() if self.pool.fits_in(demand, each)}
        open_ = [
            each
            for each in self.residents(at)
            if each.id in able and each.ready and not each.busy
            if each.devices not in barred and not claimed & set(each.devices)
        ]
        if not open_:
            return None
        best = min(open_, key=lambda each: (each.loss_s, each.last_used, each.id))
        swap_s = self._swap_s(demand, reload_s)
        otherwise_s = self._costs_s(victims, at, sleep=sleep) + STOP_S + reload_s
        if best.loss_s + swap_s >= otherwise_s:
            return None
        why = (
            f"takes over the engine of {best.id} ({best.model}), which has the same shape: {swap_s:.1f} s, and "
            f"{best.loss_s:.1f} s for its loss, instead of {otherwise_s:.1f} s"
        )
        self.ahead.preloads.gone(best.id, at)
        return self.pool.swap(able[best.id], demand, at, why)

    def _swap_s(self, demand: Demand, reload_s: float) -> float:
        return self.usage.swap(demand.model, demand.per_device.weights_bytes * demand.device_count, reload_s)

    def _bring(
        self,
        room: Room,
        demand: Demand,
        devices: tuple[DeviceId, ...],
        asleep: Replica | None,
        at: float,
        reason: str,
    ) -> tuple[Replica, list[Command]]:
        """Wake the sleeper where the room is its own; else start on the devices, and let a sleeper elsewhere go."""
        if asleep is not None and room.wakes:
            return asleep, [self.pool.wake(asleep, at, reason)]
        replica, started = self.pool.start(demand, devices, at, reason)
        ends = self.pool.step_down(asleep.id, at, f"{replica.id} starts instead") if asleep else []
        return replica, [started, *ends]

    def _moves(
        self, demand: Demand, victims: tuple[ReplicaId, ...], claimed: frozenset[DeviceId], at: float
    ) -> Plan | None:
        """A move to another device instead of the loss of the victims, where these are more likely than not to be asked
        for soon, so that they would have to start again anyway. One that needs others to go first is not worth it."""
        there = self.residents(at)
        loss_s = self._costs_s(victims, at)
        if loss_s < WORTH_MOVING_S:
            return None
        reload_s = {each.id: self._takes_s(self.replicas[each.id].demand, None) for each in there}
        plan = defragment(demand, self.ledger, there, reload_s, claimed, most_states=MOVES_LOOKED_AT)
        if plan is None or loss_s < plan.cost_s / 2 or len(plan.moves) > 1:
            return None
        (move,) = plan.moves
        moved = self.replicas[move.replica].demand
        closed = move.end in self.ledger.running_out or self.pool.breakers.open_for(moved.model, at)
        fits = move.copied and moved.per_device.total_bytes <= self.ledger.free_bytes(move.end)
        return plan if fits and not closed else None

    def _move(self, plan: Plan, demand: Demand, at: float) -> list[Command]:
        """Start each on its new device, and send the old one away: both have room there until it has gone."""
        commands: list[Command] = []
        for move in plan.moves:
            old = self.replicas[move.replica]
            why = f"moves from {move.start} to {move.end}: room for {demand.model}: {plan.reason}"
            replica, started = self.pool.start(old.demand, (move.end,), at, f"{old.id} {why}")
            commands += [started, *self.pool.step_down(old.id, at, f"{replica.id} starts instead; it {why}")]
        return commands

    def _find_room(self, demand: Demand, asleep: Replica | None, claimed: frozenset[DeviceId], at: float) -> Room:
        return find_room(self.pool, demand, asleep, claimed, at, lambda sleep: self.residents(at, sleep=sleep))

    def _takes_s(self, demand: Demand, asleep: Replica | None) -> float:
        return takes_s(self.usage, demand, asleep=asleep is not None)

    def _ready_in(self, replica: Replica, at: float) -> float:
        """Seconds until it serves, as far as earlier times tell."""
        waking = replica.state in (State.WAKING, State.SLEEPING)
        known = self._expected(replica)
        if known is not None and replica.progressed_at is not None:
            return known.left_s(replica.phases_done, at - replica.progressed_at)
        takes_s = self._takes_s(replica.demand, replica if waking else None)
        return takes_s if replica.state is State.SLEEPING else max(0.0, replica.started_at + takes_s - at)

    def _expected(self, replica: Replica) -> Expected | None:
        """The phases of a start that is under way; None where nobody can tell, and for a hot swap, which has others."""
        known = replica.state is State.STARTING and not replica.swapped
        return expected(self.usage, replica.demand) if known else None

    def _coming(self, replica: Replica) -> str:
        """What it does at the moment. The words stay as long as the phase, and phases too short to read have none: who
        waits is told whenever they change."""
        text = f"{replica.id} is {replica.state}"
        known = self._expected(replica)
        doing = known.doing(replica.phases_done) if known and replica.phases_done else None
        if known is None or doing is None or doing[1] < WORTH_NAMING_S:
            return text
        left_s = known.left_s(replica.phases_done, 0.0)
        return f"{text}: {doing[0]} begins, {left_s:.0f} of {known.total_s:.0f} s left"

    def _barred(self, queued: Queued, at: float) -> list[Command]:
        """Refuse what no place may be tried for, with the cause and when to come back."""
        demand, request = queued.demand, queued.request
        opened = self.pool.breakers.open_for(demand.model, at)
        if not opened or (len(opened) < PLACES_TRIED and self._place_for(demand, at)):
            return []
        self._queue.leave(request.ticket)
        last = max(opened.values(), key=lambda each: each.retry_at)
        left_s = max(0.0, min(each.retry_at for each in opened.values()) - at)
        reason = f"cannot start {demand.model}: {last.in_a_row} starts in a row failed; next try in {left_s:.0f} s"
        return [Refuse(request.ticket, RefusalCode.ENGINE_FAILED, reason, retry_after_s=left_s, cause=last.cause)]

    def _one_more(
        self, queued: Queued, full: list[Replica], claimed: set[DeviceId], at: float
    ) -> tuple[list[Command], str, float | None]:
        """All its replicas work on as much as they may: wait for a lease to end, or wake or start another replica."""
        demand = queued.demand
        names = ", ".join(f"{each.id} works on {each.load} of {each.pressure.limit}" for each in full)
        lease_s = self.usage.lease(demand.model)
        busy = f"{names} requests", lease_s / max(1, sum(each.load for each in full))
        if len(full) >= demand.max_replicas or self._barred_anywhere(demand, at):
            return [], *busy
        queued.drain_at = queued.request.at + self.limits.patience_s
        if at < queued.drain_at:
            return [], *busy
        queued.drain_at = None
        waiting = sum(1 for each in self.queue.values() if each.demand.key == demand.key)
        asleep = next((each for each in self.pool.of(demand) if each.state is State.ASLEEP), None)
        adjusted = self.pool.adjusted(demand)
        room = self._find_room(adjusted, asleep, frozenset(claimed), at)
        match room.at:
            case Fits(devices=devices, victims=(), reason=reason):
                why = f"{waiting} requests wait for {len(full)} of at most {demand.max_replicas} replicas; {reason}"
                if asleep is not None and room.wakes:
                    return (
                        [self.pool.wake(asleep, at, why)],
                        f"{asleep.id} is {asleep.state}",
                        self._ready_in(asleep, at),
                    )
                replica, started = self.pool.start(adjusted, devices, at, why)
                return [started], f"{replica.id} is {replica.state}", self._ready_in(replica, at)
            case Fits(devices=devices, victims=victims, reason=reason) if (
                self._costs_s(victims, at) < waiting * lease_s
            ):
                claimed.update(devices)
                why = f"room for one more {demand.model}: {reason}"
                leave = self._all_step_down(victims, at, why, sleep=room.sleep)
                return leave, f"{names} requests; making room for one more replica", busy[1]
            case _:
                return [], *busy

    def _barred_anywhere(self, demand: Demand, at: float) -> bool:
        return bool(self.pool.breakers.open_for(demand.model, at))

    def _costs_s(self, victims: Iterable[ReplicaId], at: float, *, sleep: bool = False) -> float:
        chosen = set(victims)
        return sum(each.loss_s for each in self.residents(at, sleep=sleep) if each.id in chosen)

    def _shed(self, at: float, only: Queued | None = None, without: Queued | None = None) -> list[Command]:
        """Refuse those whose turn would come long after their deadline, of all or of one, were `without` not there."""
        line = [each for each in self._queue.ordered(at, self.limits.overtaking_s) if each is not without]
        refused = overdue(line, self.pool, at, only)
        for each in refused:
            self._queue.leave(each.ticket)
        return list(refused)

    def _drain_at(self, request: RequestArrived, victims: Iterable[ReplicaId], at: float) -> float:
        """A replica may serve others for the time of patience, counted from when it was ready to serve at all; an idle
        one only for its residence."""
        chosen = [self.replicas[victim] for victim in victims]
        if not any(each.leases for each in chosen):
            return max(self.pool.resident_until(each) for each in chosen)
        return max(request.at, *(each.ready_at or 0.0 for each in chosen)) + self.limits.patience_s

    def residents(self, at: float, *, sleep: bool = False) -> list[Resident]:
        """The replicas as the policies see them, with what is booked for each and what its loss would cost."""
        if (there := self._seen.get((at, sleep))) is None:
            there = self._seen[at, sleep] = self.pool.residents(at, sleep=sleep)
        return there

    def _all_step_down(self, victims: Iterable[ReplicaId], at: float, reason: str, *, sleep: bool) -> list[Command]:
        """Send them down the ladder: to sleep, if that frees enough and they can, else to their end."""
        return [command for victim in victims for command in self.pool.step_down(victim, at, reason, sleep=sleep)]
