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

from dataclasses import dataclass, field, replace
from itertools import count
from typing import assert_never

from heliosd.core.ahead import Ahead
from heliosd.core.costs import Cost, cost
from heliosd.core.door import Door
from heliosd.core.drift import DriftWatch
from heliosd.core.failures import Failures
from heliosd.core.headroom import HeadroomWatch
from heliosd.core.leak_watch import DAEMON
from heliosd.core.ledger import Ledger
from heliosd.core.messages import (
    Command,
    DemandsKnown,
    DeviceDrainAsked,
    DevicesFound,
    DevicesRead,
    DrainAsked,
    DrainEnded,
    Event,
    LimitAsked,
    Limits,
    LimitsChanged,
    ModelsChanged,
    ModelsKnown,
    ModelsPlaced,
    ModelsWanted,
    PeersChanged,
    ReplicaBecameReady,
    ReplicaDied,
    ReplicaExited,
    ReplicaPressed,
    ReplicaProgressed,
    ReplicaSlept,
    ReplicaWoke,
    RequestArrived,
    RequestReleased,
    ShellsHeld,
    SleepAsked,
    StartAsked,
    StartReplica,
    StopAsked,
    Tick,
    TierHeld,
    UsageSeeded,
    WakeReplica,
)
from heliosd.core.names import ReplicaId, Ticket
from heliosd.core.neighbours import Neighbours
from heliosd.core.queue import Queue, Queued
from heliosd.core.readings import reconcile
from heliosd.core.recycling import Recycling
from heliosd.core.replicas import Replica
from heliosd.core.residents import Residents
from heliosd.core.room_making import RoomMaking
from heliosd.core.serving import Serving
from heliosd.core.snapshot import MemoryStatus, Snapshot, Waiting
from heliosd.core.upkeep import Upkeep
from heliosd.core.usage import Usage
from heliosd.core.warm_pool import WarmPool


@dataclass
class Scheduler:
    """Takes events apart and has its parts answer them. They share what is known: the queue, the pool, the ledger."""

    limits: Limits = field(default_factory=Limits)
    ledger: Ledger = field(default_factory=Ledger)
    usage: Usage = field(default_factory=Usage)
    neighbours: Neighbours = field(default_factory=Neighbours)
    draining: bool = False
    wished: tuple[Ticket, ReplicaId | None] | None = None
    """The last wish of an operator, and the replica that was started or woken for it; None: there was no room yet."""
    _queue: Queue = field(default_factory=Queue)
    drift: DriftWatch = field(default_factory=DriftWatch)
    headroom: HeadroomWatch = field(default_factory=HeadroomWatch)
    recycling: Recycling = field(default_factory=Recycling)
    _now: float = 0.0
    ahead: Ahead = field(default_factory=Ahead)
    pool: WarmPool = field(init=False)
    residents: Residents = field(init=False)
    _door: Door = field(init=False)
    _failures: Failures = field(init=False)
    _rooms: RoomMaking = field(init=False)
    _serving: Serving = field(init=False)
    _upkeep: Upkeep = field(init=False)

    def __post_init__(self) -> None:
        pool = self.pool = WarmPool(self.limits, self.ledger, self.usage)
        self.residents = Residents(pool)
        self._door = Door(pool, self._queue, self.ahead, self.neighbours)
        self._failures = Failures(pool, self._queue, self.ahead)
        self._make_rooms_with(RoomMaking(pool, self._queue, self.residents, self.neighbours, self.ahead.preloads))
        self._limit(self.limits)

    def _make_rooms_with(self, rooms: RoomMaking) -> None:
        self._rooms = rooms
        self._serving = Serving(self.pool, self._queue, self.residents, self.neighbours, self._failures, rooms)
        self._upkeep = Upkeep(self.pool, self._queue, self.ahead, rooms)

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
        self.residents.changed()
        commands = self._take_in(event)
        commands += self._door.too_late(at)
        commands += self.recycling.recycle(self.pool, at, draining=self.draining)
        if not self.draining:
            commands += self._upkeep.keep_wanted(at)
        self.residents.changed()
        commands += self._serving.serve(at)
        self.residents.changed()
        if not self.draining:
            commands += self.recycling.succeed(self.pool, self._queue, self._rooms, at)
            commands += self._upkeep.start_ahead(at)
        return [*commands, *self._upkeep.expire(at)]

    def _take_in(self, event: Event) -> list[Command]:  # noqa: PLR0912, PLR0915 (one case for each event)
        match event:
            case RequestArrived():
                return self._door.arrived(event, draining=self.draining)
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
                return [*self.pool.pressed(event), *self._door.shed(event.at), *self._upkeep.grow(event)]
            case ReplicaDied(replica=replica):
                self._failures.died(replica)
            case ReplicaExited():
                return self._failures.exited(event)
            case DevicesFound(devices=devices):
                self.ledger.devices = {device.id: device for device in devices}
            case DevicesRead():
                self.recycling.watch.look(event, self.pool, self.limits.leaks)
                return reconcile(event, self.pool, self.drift, self.headroom)
            case PeersChanged():
                self.neighbours.told(event)
            case ModelsWanted(wanted=wanted):
                self.pool.wanted = {each.demand.key: each for each in wanted}
            case SleepAsked():
                return self._upkeep.sleep_asked(event)
            case StopAsked():
                if event.replica in self.replicas:
                    self.ahead.preloads.bar(self.replicas[event.replica].demand.model)
                return self.pool.step_down(event.replica, event.at, "an operator asked for it")
            case DrainAsked():
                return self._drain_all(event.at)
            case DrainEnded():
                self.draining = False
            case DeviceDrainAsked():
                return self._upkeep.device_drain_asked(event)
            case StartAsked():
                commands = self._upkeep.start_asked(event)
                begun = (each.replica for each in commands if isinstance(each, StartReplica | WakeReplica))
                self.wished = event.wish, next(begun, None)
                return commands
            case LimitAsked(replica=replica, most=most):
                if replica in self.replicas:
                    self.replicas[replica].pressure.bound(most)
            case LimitsChanged(limits=limits, keep_alives=keep_alives):
                self._limit(limits)
                self.ahead.demands.clear()
                self._failures.forget()
                for replica, keep_alive_s in keep_alives:
                    if replica in self.replicas:
                        self.replicas[replica].keep_alive_s = keep_alive_s
            case ModelsChanged():
                self._failures.forget()
                self.ahead.demands.clear()
            case ModelsKnown(sizes=sizes):
                self.pool.sizes = {model: self.pool.sizes.get(model, n_bytes) for model, n_bytes in sizes}
            case TierHeld(host_bytes=host_bytes):
                self.ledger.tier_bytes = host_bytes
            case ShellsHeld(host_bytes=host_bytes):
                self.ledger.shell_bytes = host_bytes
            case ModelsPlaced(placed=placed, speeds=speeds):
                self.usage.places.told(placed, speeds)
            case UsageSeeded(at=at, epoch_offset_s=offset_s, models=known, starts=starts, swaps=swaps):
                self.usage.seeded(at, offset_s, known, starts, swaps)
            case DemandsKnown(demands=demands):
                self.ahead.know(demands)
            case Tick():
                pass
            case _:
                assert_never(event)
        return []

    def _released(self, event: RequestReleased) -> list[Command]:
        self._queue.leave(event.ticket)
        for replica in self.replicas.values():
            if event.ticket in replica.leases:
                held_s = replica.release(event.ticket, event.at)
                self.usage.released(replica.demand.model, held_s)
                return self.pool.drained(replica, event.at)
        return []

    def _drain_all(self, at: float) -> list[Command]:
        self.draining = True
        self.pool.wanted.clear()
        commands = self._door.close()
        for replica in list(self.replicas):
            commands += self.pool.step_down(replica, at, "the node is draining")
        return commands

    def sleepless(self, replica_id: ReplicaId, at: float) -> str | None:
        """Why a replica cannot be put to sleep; None when it can, or sleeps."""
        return self._upkeep.sleepless(replica_id, at)

    def cost(self, replica_id: ReplicaId, at: float) -> Cost:
        """What sending a replica away would free and cost."""
        return cost(self.pool, self.replicas[replica_id], at, self.sleepless(replica_id, at))

    @property
    def next_wakeup(self) -> float | None:
        """When `Tick` is due for something that only time brings about; None when nothing is."""
        times = [self._upkeep.next_expiry()]
        for queued in self.queue.values():
            times += [when for when in (queued.drain_at, queued.request.deadline_at) if when is not None]
        if len(self.queue) > 1:
            times.append(self._queue.ages_at(self._now, self.limits.overtaking_s))
        models = {each.demand.model for each in self.queue.values()}
        models |= {wanted.demand.model for wanted in self.pool.missing()}
        times += [when for model in models for when in self._failures.next_tries(model, self._now)]
        if not self.draining:
            times.append(self.ahead.next_look(self.pool))
        soonest = min(times, default=float("inf"))
        return None if soonest == float("inf") else soonest

    def _memory(self, name: str) -> MemoryStatus | None:
        followed = self.recycling.watch.followed.get(name)
        return followed.status() if followed else None

    def snapshot(self, at: float) -> Snapshot:
        pinned = self.pool.pinned()
        return Snapshot(
            at=at,
            devices=tuple(
                replace(self.ledger.account(device), exhaustion=self.headroom.exhaustion(device, device=True))
                for device in self.ledger.devices
            ),
            spaces=self.headroom.all_spaces(),
            replicas=tuple(
                replica.status(replica.id in pinned, self._memory(replica.id)) for replica in self.replicas.values()
            ),
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
            daemon=self._memory(DAEMON),
            recycles=tuple(
                (model, where, number)
                for model, by_place in self.recycling.counts.items()
                for where, number in by_place.items()
            ),
        )
