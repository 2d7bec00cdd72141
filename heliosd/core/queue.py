"""Requests that wait, and in which order they are served."""

from dataclasses import dataclass, field

from heliosd.core.fair_share import FairShare, Turn
from heliosd.core.messages import Demand, RequestArrived
from heliosd.core.names import Ticket

RETOLD_S = 2.0
"""A client is told of its place no more often, as long as the reason is the same."""


@dataclass
class Queued:
    """A request that waits, and what it was told last."""

    request: RequestArrived
    demand: Demand
    turn: Turn
    """Of the fair share."""
    number: int = 0
    """Of its arrival."""
    told: str | None = None
    told_at: float = 0.0
    position: int = 0
    eta_s: float | None = None
    drain_at: float | None = None
    """When what stands in its way will be drained; None while nothing needs to be."""

    def order(self, at: float, overtaking_s: float) -> tuple[int, int, int, int]:
        if at - self.request.at >= overtaking_s:
            return (0, 0, 0, self.number)
        return (1, -self.request.terms.priority, self.turn.round, self.number)

    def news(self, at: float, reason: str, position: int, eta_s: float | None) -> bool:
        """Take in what can be told now; whether it is worth telling."""
        worth = self.told != reason or (self.position != position and at - self.told_at >= RETOLD_S)
        if worth:
            self.told, self.told_at, self.position = reason, at, position
        self.eta_s = eta_s
        return worth


@dataclass
class Queue:
    """Who waits, by ticket in order of arrival. Written by the scheduler alone."""

    waiting: dict[Ticket, Queued] = field(default_factory=dict)
    fair: FairShare = field(default_factory=FairShare)
    _arrivals: int = 0

    def add(self, request: RequestArrived, demand: Demand) -> Queued:
        self._arrivals += 1
        queued = Queued(request, demand, self.fair.enter(request.terms), self._arrivals)
        self.waiting[request.ticket] = queued
        return queued

    def served(self, queued: Queued) -> None:
        self.waiting.pop(queued.request.ticket, None)
        self.fair.served(queued.turn.round)

    def leave(self, ticket: Ticket) -> None:
        """It was refused, passed on, came too late or went away: its key is not charged for it. Harmless when it does
        not wait."""
        queued = self.waiting.pop(ticket, None)
        if queued is None:
            return
        mine = (each for each in self.waiting.values() if each.turn.key == queued.turn.key)
        self.fair.refund(queued.turn, [each.turn for each in mine if each.number > queued.number])

    def ordered(self, at: float, overtaking_s: float) -> list[Queued]:
        return sorted(self.waiting.values(), key=lambda each: each.order(at, overtaking_s))

    def ages_at(self, at: float, overtaking_s: float) -> float:
        """When the next request will have waited for so long that it overtakes; infinite when none will."""
        soonest = (each.request.at + overtaking_s for each in self.waiting.values())
        return min((when for when in soonest if when > at), default=float("inf"))
