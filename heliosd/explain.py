"""What the scheduler knows of one request, model or replica, with the figures that decide. Changes nothing."""

from dataclasses import dataclass

from heliosd.core.eviction import by_worth
from heliosd.core.lifecycle import State
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.usage import HORIZON_S


@dataclass(frozen=True, slots=True)
class Waits:
    """A request that waits now."""

    model: str
    waited_s: float
    reason: str
    position: int
    """Requests that will be served before it."""
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Barred:
    """Devices where a model failed, and is not started for a while."""

    devices: tuple[DeviceId, ...]
    failures: int
    """In a row."""
    retry_in_s: float
    """Zero: the next request may try."""
    cause: str


@dataclass(frozen=True, slots=True)
class Appetite:
    """How much a model is asked for, and what it costs to have it again."""

    asked_per_minute: float
    """To be expected from here on, by how often it was asked for lately."""
    reuse_ratio: float
    """Probability of a request within `horizon_s`: 1 - exp(-rate · horizon)."""
    horizon_s: float
    reload_s: float | None
    """Seconds of its last start here; None: it never started here."""
    wake_s: float | None
    lease_s: float | None
    """Seconds that a request is worked on."""
    waiting: int
    barred: tuple[Barred, ...]
    tier: str | None = None
    """The slowest that its files have to be read from; None: nobody knows."""
    read_s: float | None = None
    """Seconds of reading them from where they are: bytes / speed of each tier."""
    at_once: int | None = None
    """How many requests at once are expected at most, by those before; None: too few were."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A replica that would make room sooner."""

    id: ReplicaId
    model: str
    loss_s: float
    frees_bytes: int


@dataclass(frozen=True, slots=True)
class Worth:
    """What the loss of a replica would cost, and when its turn comes to make room."""

    loss_s: float
    """Seconds of waiting to be expected: probability of reuse · `slower_s`."""
    slower_s: float
    """By so much longer it would take to have it back; as usual for its size, where nothing was measured."""
    frees_bytes: int
    """On each of its devices."""
    sleeps: bool
    """It would be put to sleep rather than stopped."""
    rank: int | None
    """1: the next to go; None: it is not asked to go."""
    of: int
    protected: str | None
    """Why it is not asked to go."""
    before: tuple[Rival, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Those that do not apply are None."""

    waits: Waits | None
    appetite: Appetite | None
    worth: Worth | None


def facts(scheduler: Scheduler, subject: str, at: float) -> Facts:
    """About a ticket, a replica's id or a model's ref; of a replica also how much its model is asked for."""
    replica = scheduler.replicas.get(ReplicaId(subject))
    return Facts(
        waits=_waits(scheduler, Ticket(subject), at),
        appetite=_appetite(scheduler, replica.demand.model if replica else subject, at),
        worth=_worth(scheduler, ReplicaId(subject), at) if replica else None,
    )


def _waits(scheduler: Scheduler, ticket: Ticket, at: float) -> Waits | None:
    queued = scheduler.queue.get(ticket)
    if queued is None:
        return None
    waited_s = max(0.0, at - queued.request.at)
    return Waits(queued.demand.model, waited_s, queued.told or "", queued.position, queued.eta_s)


def _appetite(scheduler: Scheduler, model: str, at: float) -> Appetite | None:
    usage = scheduler.usage
    habit = usage.forecast.habits.get(model)
    breakers = scheduler.pool.breakers.by_model.get(model, {})
    if habit is None and model not in usage.reload_s and not breakers:
        return None
    return Appetite(
        asked_per_minute=habit.heat.rate(at) * 60 if habit else 0.0,
        reuse_ratio=usage.reuse(model, at),
        horizon_s=HORIZON_S,
        reload_s=usage.reload_s.get(model),
        wake_s=usage.wake_s.get(model),
        lease_s=usage.lease_s.get(model),
        waiting=sum(1 for queued in scheduler.queue.values() if queued.demand.model == model),
        barred=tuple(
            Barred(devices, each.in_a_row, max(0.0, each.retry_at - at), each.cause)
            for devices, each in breakers.items()
            if each.state(at) != "closed"
        ),
        tier=usage.places.tier(model),
        read_s=usage.places.read_s(model),
        at_once=usage.expected_at_once(model, at),
    )


def _worth(scheduler: Scheduler, replica_id: ReplicaId, at: float) -> Worth:
    residents = {each.id: each for each in scheduler.pool.residents(at, sleep=True)}
    mine, replica = residents[replica_id], scheduler.replicas[replica_id]
    ranked = by_worth(residents.values())
    rank = ranked.index(mine) + 1 if mine in ranked else None
    sleeps = scheduler.pool.sleep_level(replica, at) > 0 and replica.state is State.READY
    reuse = scheduler.usage.reuse(replica.demand.model, at)
    protected = None
    if rank is None:
        protected = "an operator pinned it" if mine.pinned else f"it is {replica.state}"
    elif mine.busy:
        protected = f"it works on {replica.load} requests" if replica.leases else "it has only just become ready"
    return Worth(
        loss_s=mine.loss_s,
        slower_s=mine.loss_s / reuse if reuse else 0.0,
        frees_bytes=mine.frees_bytes,
        sleeps=sleeps,
        rank=rank,
        of=len(ranked),
        protected=protected,
        before=tuple(Rival(each.id, each.model, each.loss_s, each.frees_bytes) for each in ranked[: (rank or 1) - 1]),
    )
