"""Starts or wakes what a request needs, or makes room for it: a move, a hot swap, or whoever is idle steps down."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from heliosd.core import admission
from heliosd.core.eta import STOP_S, swap_s
from heliosd.core.messages import Command, Demand, RefusalCode, Refuse, RequestArrived
from heliosd.core.moving import carry_out, worthwhile_move
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.neighbours import Neighbours
from heliosd.core.placement import Fits, MustWait, NeverFits
from heliosd.core.preloads import Preloads
from heliosd.core.queue import Queue, Queued
from heliosd.core.replicas import Replica
from heliosd.core.residents import Residents
from heliosd.core.rooms import Room, find_room, takes_s
from heliosd.core.warm_pool import WarmPool


class Way(NamedTuple):
    """How a request that waits comes to its replica."""

    commands: list[Command]
    reason: str
    """What it is told."""
    eta_s: float | None
    """Until it is served; None: nobody can tell."""


@dataclass(frozen=True)
class RoomMaking:
    """Owned by the scheduler."""

    pool: WarmPool
    queue: Queue
    residents: Residents
    neighbours: Neighbours
    preloads: Preloads

    def room_for(
        self, queued: Queued, demand: Demand, asleep: Replica | None, claimed: set[DeviceId], at: float
    ) -> Way:
        """Adds to `claimed` what those behind it must leave."""
        request = queued.request
        reload_s = takes_s(self.pool.usage, demand, asleep=asleep is not None)
        room = self.find(demand, asleep, frozenset(claimed), at)
        match room.at:
            case NeverFits(reason):
                self.queue.leave(request.ticket)
                forward = admission.elsewhere(request, self.neighbours.holders(request.model), "it can never fit here")
                refused = Refuse(request.ticket, RefusalCode.CANNOT_FIT, f"cannot fit: {reason}")
                return Way([forward or refused], reason, None)
            case MustWait(out=out, reason=reason) if out:
                holders = self.neighbours.holders(request.model)
                if forward := admission.elsewhere(request, holders, f"{'+'.join(out)} here is out for now"):
                    self.queue.leave(request.ticket)
                    return Way([forward], reason, None)
                return Way([], reason, None)
            case Fits(devices=devices, victims=(), reason=reason):
                replica, commands = self.bring(room, demand, devices, asleep, at, reason)
                return Way(commands, f"{replica.id} is {replica.state}", reload_s)
            case Fits(victims=victims) if cast := self._cast(
                demand, victims, room.sleep, reload_s, frozenset(claimed), at
            ):
                replica, started = cast
                return Way([started], f"{replica.id} is {replica.state}", swap_s(self.pool.usage, demand, reload_s))
            case Fits(devices=devices, victims=victims, reason=reason):
                if plan := worthwhile_move(demand, victims, self.residents, frozenset(claimed), at):
                    claimed.update(plan.devices)
                    moves = carry_out(plan, demand, self.residents, at)
                    return Way(moves, f"making room: {plan.reason}", STOP_S + reload_s)
                claimed.update(devices)
                leave = self.all_step_down(victims, at, f"room for {demand.model}: {reason}", sleep=room.sleep)
                return Way(leave, f"making room: {reason}", STOP_S + reload_s)
            case MustWait(devices=devices, drain=victims, reason=reason):
                claimed.update(devices)
                if not victims:
                    return Way([], reason, STOP_S + reload_s if devices else None)
                queued.drain_at = self._drain_at(request, victims, at)
                lease_s = max(self.pool.usage.lease(self.pool.replicas[each].demand.model) for each in victims)
                if at >= queued.drain_at:
                    queued.drain_at = None
                    why = f"in the way of {demand.model} for {self.pool.limits.patience_s:.0f} s"
                    leave = self.all_step_down(victims, at, why, sleep=room.sleep)
                    return Way(leave, f"making room: {reason}", lease_s + STOP_S + reload_s)
                return Way([], reason, queued.drain_at - at + lease_s + STOP_S + reload_s)

    def find(self, demand: Demand, asleep: Replica | None, claimed: frozenset[DeviceId], at: float) -> Room:
        """Where it may run, be it woken or started."""
        return find_room(self.pool, demand, asleep, claimed, at, lambda sleep: self.residents.at(at, sleep=sleep))

    def bring(
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

    def all_step_down(self, victims: Iterable[ReplicaId], at: float, reason: str, *, sleep: bool) -> list[Command]:
        """Send them down the ladder: to sleep, if that frees enough and they can, else to their end."""
        return [command for victim in victims for command in self.pool.step_down(victim, at, reason, sleep=sleep)]

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
        able = {each.id: each for each in self.pool.replicas.values() if self.pool.fits_in(demand, each)}
        open_ = [
            each
            for each in self.residents.at(at)
            if each.id in able and each.ready and not each.busy
            if each.devices not in barred and not claimed & set(each.devices)
        ]
        if not open_:
            return None
        best = min(open_, key=lambda each: (each.loss_s, each.last_used, each.id))
        takes_over_s = swap_s(self.pool.usage, demand, reload_s)
        otherwise_s = self.residents.cost_s(victims, at, sleep=sleep) + STOP_S + reload_s
        if best.loss_s + takes_over_s >= otherwise_s:
            return None
        why = (
            f"takes over the engine of {best.id} ({best.model}), which has the same shape: {takes_over_s:.1f} s, and "
            f"{best.loss_s:.1f} s for its loss, instead of {otherwise_s:.1f} s"
        )
        self.preloads.gone(best.id, at)
        return self.pool.swap(able[best.id], demand, at, why)

    def _drain_at(self, request: RequestArrived, victims: Iterable[ReplicaId], at: float) -> float:
        """A replica may serve others for the time of patience, counted from when it was ready to serve at all; an idle
        one only for its residence."""
        chosen = [self.pool.replicas[victim] for victim in victims]
        if not any(each.leases for each in chosen):
            return max(self.pool.resident_until(each) for each in chosen)
        return max(request.at, *(each.ready_at or 0.0 for each in chosen)) + self.pool.limits.patience_s
