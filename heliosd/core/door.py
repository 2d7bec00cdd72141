"""Who is let in to wait, and who of those that wait is turned away: too many, too late, or the node goes down."""

from dataclasses import dataclass

from heliosd.core import admission
from heliosd.core.ahead import Ahead
from heliosd.core.messages import Command, RefusalCode, Refuse, RequestArrived
from heliosd.core.neighbours import Neighbours
from heliosd.core.queue import Queue, Queued
from heliosd.core.shedding import overdue
from heliosd.core.warm_pool import WarmPool


@dataclass(frozen=True, slots=True)
class Door:
    """Owned by the scheduler."""

    pool: WarmPool
    queue: Queue
    ahead: Ahead
    neighbours: Neighbours

    def arrived(self, request: RequestArrived, *, draining: bool) -> list[Command]:
        """Let a request wait, pass it on, or refuse it, or another in its favour."""
        limits, waiting = self.pool.limits, len(self.queue.waiting)
        refused = admission.refusal(request, draining=draining, queued=waiting, limits=limits)
        last: Queued | None = None
        if refused and refused.code is RefusalCode.QUEUE_FULL and request.demand is not None:
            last = self._last_in_line(request)
        if refused and last is None:
            return [refused]
        if request.demand is None:
            forward = admission.elsewhere(
                request, self.neighbours.holders(request.model), f"{request.model} is not in this node's store"
            )
            unknown = Refuse(request.ticket, RefusalCode.UNKNOWN_MODEL, f"cannot find model {request.model}")
            return [forward or unknown]
        queued = self.queue.add(request, request.demand)
        self.pool.usage.asked(request.demand.model, request.at)
        self.ahead.know([request.demand])
        self.ahead.preloads.asked(request.demand.model)
        self.pool.sizes[request.demand.model] = request.demand.per_device.total_bytes
        shed = self.shed(request.at, queued, without=last)
        return shed if shed or last is None else [self._make_place(last, request)]

    def _last_in_line(self, request: RequestArrived) -> Queued | None:
        """Who gives his place in a full line to a request of a higher class; None when nobody is of a lower one."""
        if not self.queue.waiting:
            return None
        last = self.queue.ordered(request.at, self.pool.limits.overtaking_s)[-1]
        return last if last.request.terms.priority < request.terms.priority else None

    def _make_place(self, last: Queued, request: RequestArrived) -> Command:
        self.queue.leave(last.request.ticket)
        reason = (
            f"cannot keep the request for {last.request.model} waiting: {self.pool.limits.queue_length} are, which is "
            f"the limit, and one of class {request.terms.priority.name.lower()} came"
        )
        return Refuse(last.request.ticket, RefusalCode.QUEUE_FULL, reason, retry_after_s=5.0)

    def shed(self, at: float, only: Queued | None = None, without: Queued | None = None) -> list[Command]:
        """Refuse those whose turn would come long after their deadline, of all or of one, were `without` not there."""
        line = [each for each in self.queue.ordered(at, self.pool.limits.overtaking_s) if each is not without]
        refused = overdue(line, self.pool, at, only)
        for each in refused:
            self.queue.leave(each.ticket)
        return list(refused)

    def too_late(self, at: float) -> list[Command]:
        """Refuse those whose deadline has come."""
        commands: list[Command] = []
        for ticket, queued in list(self.queue.waiting.items()):
            deadline_at = queued.request.deadline_at
            if deadline_at is not None and at >= deadline_at:
                self.queue.leave(ticket)
                waited_s = at - queued.request.at
                reason = f"cannot serve {queued.demand.model} in time: waited {waited_s:.0f} s; {queued.told or ''}"
                commands.append(Refuse(ticket, RefusalCode.DEADLINE, reason.rstrip("; "), retry_after_s=30.0))
        return commands

    def close(self) -> list[Command]:
        """Refuse all who wait: the node goes down."""
        refused: list[Command] = [
            refusal
            for queued in self.queue.waiting.values()
            if (refusal := admission.refusal(queued.request, draining=True, queued=0, limits=self.pool.limits))
        ]
        self.queue.waiting.clear()
        return refused
