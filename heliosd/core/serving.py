"""Goes through the requests that wait: each gets a replica, or is told what is being done to get it one."""

from dataclasses import dataclass

from heliosd.core.eta import doing, ready_in, turns_s
from heliosd.core.failures import Failures
from heliosd.core.lifecycle import COMING, State
from heliosd.core.messages import Command, Forward, Grant, Hold, Refuse
from heliosd.core.names import DeviceId
from heliosd.core.neighbours import UNKNOWN_WAIT_S, Neighbours
from heliosd.core.placement import Fits
from heliosd.core.queue import Queue, Queued
from heliosd.core.replicas import Replica
from heliosd.core.residents import Residents
from heliosd.core.room_making import RoomMaking, Way
from heliosd.core.rooms import takes_s
from heliosd.core.routing import choose
from heliosd.core.warm_pool import Key, WarmPool


@dataclass(frozen=True, slots=True)
class Serving:
    """Owned by the scheduler."""

    pool: WarmPool
    queue: Queue
    residents: Residents
    neighbours: Neighbours
    failures: Failures
    rooms: RoomMaking

    def serve(self, at: float) -> list[Command]:
        """Go through the queue in its order; equal models share one answer."""
        commands: list[Command] = []
        answers: dict[Key, tuple[str, float | None]] = {}
        claimed: set[DeviceId] = set()
        ahead: dict[Key, int] = {}
        must_wait: set[Key] = set()
        for place_in_line, queued in enumerate(self.queue.ordered(at, self.pool.limits.overtaking_s)):
            ticket, key = queued.request.ticket, queued.demand.key
            queued.drain_at = None
            prefix = queued.request.terms.prefix
            replica = choose((each for each in self.pool.of(queued.demand) if each.open), prefix)
            if replica is not None:
                self.queue.served(queued)
                replica.grant(ticket, at, prefix)
                self.pool.usage.granted(replica.demand.model, replica.load, at)
                self.residents.changed()
                commands.append(Grant(ticket, replica.id, f"{replica.id} is ready"))
                continue
            if key not in answers:
                decided, reason, eta_s = self._make_way(queued, claimed, at)
                commands += decided
                if decided:
                    self.residents.changed()
                elif all(each.state is State.ASLEEP for each in self.pool.of(queued.demand)):
                    must_wait.add(key)
                if ticket not in self.queue.waiting:
                    continue
                answers[key] = reason, eta_s
            reason, eta_s = answers[key]
            before = ahead.get(key, -1) + 1
            eta_s = None if eta_s is None else eta_s + turns_s(self.pool.usage, queued.demand, before)
            if key in must_wait and before and (forward := self._passed_on(queued, Way([], reason, eta_s))):
                commands.append(forward)
                continue
            ahead[key] = before
            if queued.news(at, reason, place_in_line, eta_s):
                commands.append(Hold(ticket, reason, place_in_line, eta_s))
        return commands

    def _make_way(self, queued: Queued, claimed: set[DeviceId], at: float) -> Way:
        """Start or wake what the request needs, or say what it waits for, and how long probably.

        Adds to `claimed` what those behind it must leave.
        """
        demand, usage = queued.demand, self.pool.usage
        own = self.pool.of(demand)
        if coming := next((each for each in own if each.state in COMING), None):
            return Way([], doing(usage, coming), ready_in(usage, coming, at))
        if falling := next((each for each in own if each.state is State.SLEEPING), None):
            return Way([], f"{falling.id} is falling asleep, then it wakes", ready_in(usage, falling, at))
        if full := [each for each in own if each.state is State.READY]:
            return self._one_more(queued, full, claimed, at)
        if pause := self.failures.pause(demand, at):
            held = Way([], pause.reason, pause.left_s + takes_s(usage, demand, asleep=False))
            if forward := self._passed_on(queued, held):
                return Way([forward], "", None)
            if refusal := pause.refusal(queued.request.ticket):
                self.queue.leave(queued.request.ticket)
                return Way([refusal], "", None)
            return held
        asleep = next((each for each in own if each.state is State.ASLEEP), None)
        ours = set(claimed)
        found = self.rooms.room_for(queued, self.pool.adjusted(demand), asleep, ours, at)
        if forward := self._passed_on(queued, found):
            return Way([forward], "", None)
        claimed |= ours
        return found

    def _passed_on(self, queued: Queued, found: Way) -> Forward | None:
        """A peer may be the better place for what can only wait here, or not even that."""
        decided, why, eta_s = found
        request, demand = queued.request, queued.demand
        never = any(isinstance(each, Refuse | Forward) for each in decided)
        if decided and not never:
            return None
        wait_s = float("inf") if never else UNKNOWN_WAIT_S if eta_s is None else eta_s
        lease_s, reload_s = self.pool.usage.lease(demand.model), takes_s(self.pool.usage, demand, asleep=False)
        there = self.neighbours.better(request, demand, why, wait_s, reload_s, lease_s)
        if there is None:
            return None
        self.neighbours.passed(there.peer)
        self.queue.leave(request.ticket)
        return Forward(request.ticket, there.peer, there.reason)

    def _one_more(self, queued: Queued, full: list[Replica], claimed: set[DeviceId], at: float) -> Way:
        """All its replicas work on as much as they may: wait for a lease to end, or wake or start another replica."""
        demand, usage = queued.demand, self.pool.usage
        names = ", ".join(f"{each.id} works on {each.load} of {each.pressure.limit}" for each in full)
        lease_s = usage.lease(demand.model)
        busy = Way([], f"{names} requests", lease_s / max(1, sum(each.load for each in full)))
        if len(full) >= demand.max_replicas or self.pool.breakers.open_for(demand.model, at):
            return busy
        queued.drain_at = queued.request.at + self.pool.limits.patience_s
        if at < queued.drain_at:
            return busy
        queued.drain_at = None
        waiting = sum(1 for each in self.queue.waiting.values() if each.demand.key == demand.key)
        asleep = next((each for each in self.pool.of(demand) if each.state is State.ASLEEP), None)
        adjusted = self.pool.adjusted(demand)
        room = self.rooms.find(adjusted, asleep, frozenset(claimed), at)
        match room.at:
            case Fits(devices=devices, victims=(), reason=reason):
                why = f"{waiting} requests wait for {len(full)} of at most {demand.max_replicas} replicas; {reason}"
                if asleep is not None and room.wakes:
                    woken = [self.pool.wake(asleep, at, why)]
                    return Way(woken, f"{asleep.id} is {asleep.state}", ready_in(usage, asleep, at))
                replica, started = self.pool.start(adjusted, devices, at, why)
                return Way([started], f"{replica.id} is {replica.state}", ready_in(usage, replica, at))
            case Fits(devices=devices, victims=victims, reason=reason) if (
                self.residents.cost_s(victims, at) < waiting * lease_s
            ):
                claimed.update(devices)
                why = f"room for one more {demand.model}: {reason}"
                leave = self.rooms.all_step_down(victims, at, why, sleep=room.sleep)
                return Way(leave, f"{names} requests; making room for one more replica", busy.eta_s)
            case _:
                return busy
