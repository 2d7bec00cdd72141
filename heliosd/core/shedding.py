"""Who is refused at once because his turn would come long after his deadline."""

from collections.abc import Iterable
from dataclasses import dataclass

from heliosd.core.lifecycle import State
from heliosd.core.messages import RefusalCode, Refuse
from heliosd.core.queue import Queued
from heliosd.core.warm_pool import Key, WarmPool

SHED_RATIO = 1.25
"""So many times later than the deadline allows: a wait is only estimated, and what was refused does not come back."""


@dataclass(frozen=True, slots=True)
class _Line:
    """Those who wait for one model, beside what serves it."""

    slots: int
    """Requests that its ready replicas may work on at once."""
    lease_s: float

    def wait_s(self, before: int) -> float:
        return before / self.slots * self.lease_s


def overdue(ordered: Iterable[Queued], pool: WarmPool, at: float, only: Queued | None = None) -> list[Refuse]:
    """The refusals of those whose turn would come too late, of all or of one.

    `ordered` is the queue in its order. Who stands further back waits longer, so the lowest class is shed first; each
    that is shed brings those behind him nearer. Nobody is shed for a model whose replicas are not ready, or of which
    nobody knows how long a request takes.
    """
    refused: list[Refuse] = []
    lines: dict[Key, _Line | None] = {}
    standing: dict[Key, int] = {}
    for queued in ordered:
        key, deadline_at = queued.demand.key, queued.request.deadline_at
        before = standing.get(key, 0)
        standing[key] = before + 1
        if deadline_at is None or (only is not None and queued is not only):
            continue
        if key not in lines:
            lines[key] = _line(queued, pool)
        line = lines[key]
        if line is None or before < line.slots or line.wait_s(before) <= SHED_RATIO * (deadline_at - at):
            continue
        standing[key] = before
        reason = (
            f"cannot serve {queued.demand.model} in time: {before} requests go before, {line.slots} are worked on at "
            f"once for {line.lease_s:.1f} s each, so it would wait {line.wait_s(before):.0f} s of at most "
            f"{deadline_at - at:.0f} s"
        )
        late = Refuse(queued.request.ticket, RefusalCode.OVERLOADED, reason, retry_after_s=line.wait_s(before))
        refused.append(late)
    return refused


def _line(queued: Queued, pool: WarmPool) -> _Line | None:
    ready = [each for each in pool.of(queued.demand) if each.state is State.READY]
    slots = sum(each.pressure.limit for each in ready)
    model = queued.demand.model
    return _Line(slots, pool.usage.lease(model)) if slots and model in pool.usage.lease_s else None
