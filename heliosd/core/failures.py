"""What becomes of those who wait when a replica dies or does not come up: another attempt, or its last words."""

from dataclasses import dataclass

from heliosd.core.ahead import Ahead
from heliosd.core.gist import gist
from heliosd.core.lifecycle import State
from heliosd.core.messages import Command, Demand, Note, RefusalCode, Refuse, ReplicaExited
from heliosd.core.names import ReplicaId, Ticket
from heliosd.core.placement import Fits, MustWait, NeverFits, Placement, place
from heliosd.core.queue import Queue
from heliosd.core.replicas import Replica
from heliosd.core.warm_pool import WarmPool

KILLED = "killed by SIGKILL"
"""In the cause of a death that was not the engine's own doing."""
LONGEST_HELD_PAUSE_S = 10.0
"""Who comes while the next try is further off than this is told why at once, and when to come back."""
PLACES_TRIED = 2
"""A model whose starts failed on so many places in a row is not tried on another."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in which a model is not started: it failed on all places that would do, or on too many."""

    reason: str
    """Names the places and what went wrong there. Stays the same as long as the pause."""
    left_s: float
    """Until the next try."""
    cause: str
    """The whole of what went wrong last."""

    def refusal(self, ticket: Ticket) -> Refuse | None:
        """Of a request that would wait too long for what will most likely fail again."""
        if self.left_s <= LONGEST_HELD_PAUSE_S:
            return None
        reason = f"cannot start now: {self.reason}: in {self.left_s:.0f} s"
        return Refuse(ticket, RefusalCode.ENGINE_FAILED, reason, retry_after_s=self.left_s, cause=self.cause)


@dataclass(frozen=True, slots=True)
class Failures:
    """Owned by the scheduler."""

    pool: WarmPool
    queue: Queue
    ahead: Ahead

    def died(self, replica_id: ReplicaId) -> None:
        """Who asks from now on gets a fresh replica; its bytes stay booked until it is really gone."""
        replica = self.pool.replicas.get(replica_id)
        if replica is None:  # another has taken its engine over, and learns of it
            return
        if State.FAILED is not replica.state is not State.STOPPING:
            replica.died_while = replica.state
            replica.become(State.FAILED)

    def exited(self, event: ReplicaExited) -> list[Command]:
        """Its memory is free. What is to be learned from its end, if that was none that anybody asked for?"""
        if event.replica not in self.pool.replicas:  # another has taken its engine over
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
        if _works(self._room(replica.demand, at)) and len(self.pool.breakers.open_for(model, at)) < PLACES_TRIED:
            return []
        if not all(map(self.pool.ledger.healthy, replica.devices)):
            return []  # the device's fault, not the model's: it is told to who waits, and they wait for the device
        waiting = [ticket for ticket, queued in self.queue.waiting.items() if replica.serves(queued.demand)]
        for ticket in waiting:
            self.queue.leave(ticket)
        reason = f"cannot start {model}: its engine failed while starting"
        return [
            Refuse(ticket, RefusalCode.ENGINE_FAILED, reason, retry_after_s=breaker.retry_at - at, cause=cause)
            for ticket in waiting
        ]

    def pause(self, demand: Demand, at: float) -> Pause | None:
        """Why no place that works may be tried for it now; None: one may, or none works or will ever do."""
        ledger = self.pool.ledger
        opened = {
            devices: each
            for devices, each in self.pool.breakers.open_for(demand.model, at).items()
            if all(map(ledger.healthy, devices))
        }
        room = self._room(demand, at) if opened else None
        if room is None or isinstance(room, NeverFits) or (len(opened) < PLACES_TRIED and _works(room)):
            return None
        tried = ", ".join(
            f"{'+'.join(devices)} ({each.in_a_row} in a row, the last: {gist(each.cause)})"
            for devices, each in opened.items()
        )
        reason = f"{demand.model} failed on {tried}, and is tried again after a pause"
        out = room.out if isinstance(room, MustWait) else ()
        if failing := [f"{device} ({fault})" for device in out if (fault := ledger.fault(device)) is not None]:
            reason += f"; out for now: {', '.join(failing)}"
        first = min(opened.values(), key=lambda each: each.retry_at)
        return Pause(reason, max(0.0, first.retry_at - at), first.cause)

    def next_tries(self, model: str, at: float) -> list[float]:
        """When the model may be tried again on each of the places where it failed and is not being tried."""
        return [each.retry_at for each in self.pool.breakers.open_for(model, at).values() if not each.probing]

    def _room(self, demand: Demand, at: float) -> Placement:
        """For the model alone on the node, where its breakers are not open."""
        barred = frozenset(self.pool.breakers.open_for(demand.model, at))
        return place(self.pool.adjusted(demand), self.pool.ledger, (), barred=barred)

    def forget(self) -> None:
        """What they rest on has changed: settings, models."""
        self.pool.breakers.forget()
        self.pool.learned.clear()
        self.pool.sleepless.clear()


def _works(room: Placement) -> bool:
    """There is a place that does not fail for now."""
    return isinstance(room, Fits | MustWait) and not (isinstance(room, MustWait) and room.out)
