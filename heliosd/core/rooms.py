"""Where a replica may run, be it woken or started, and what that costs in seconds."""

from collections.abc import Callable
from dataclasses import dataclass

from heliosd.core.eviction import Resident
from heliosd.core.messages import Demand
from heliosd.core.names import DeviceId
from heliosd.core.placement import Fits, MustWait, Placement, place
from heliosd.core.replicas import Replica
from heliosd.core.start_forecast import Expected
from heliosd.core.usage import Usage
from heliosd.core.warm_pool import WarmPool


@dataclass(frozen=True, slots=True)
class Room:
    """Where a replica may run, and how room is made there."""

    at: Placement
    wakes: bool = False
    """It is the place of its sleeper."""
    sleep: bool = False
    """Those who make room sleep, as far as they can, because that frees enough; else they are stopped."""


def takes_s(usage: Usage, demand: Demand, *, asleep: bool) -> float:
    """Seconds until it serves, as far as earlier times tell: woken or started."""
    now, count = demand.per_device, demand.device_count
    if asleep:
        return usage.wake(demand.model, now.weights_bytes * count)
    if demand.model not in usage.reload_s and (like := expected(usage, demand)):
        return like.total_s
    return usage.reload(demand.model, now.total_bytes * count)


def expected(usage: Usage, demand: Demand, *, swapped: bool = False) -> Expected | None:
    """The phases of its start, from its own or from those of models like it; None when nobody can tell.

    `swapped`: of a start in another's engine, which has others.
    """
    known = usage.swaps if swapped else usage.starts
    weights_bytes = demand.per_device.weights_bytes * demand.device_count
    return known.expected(demand.model, weights_bytes, demand.kinds, usage.places)


def find_room(
    pool: WarmPool,
    demand: Demand,
    asleep: Replica | None,
    claimed: frozenset[DeviceId],
    at: float,
    residents: Callable[[bool], list[Resident]],
) -> Room:
    """Where its sleeper is, or anywhere else, whichever costs fewer seconds, those of who makes room included.

    `residents` are those on the devices now, as they would step down to sleep (True) or to their end.
    """
    barred = frozenset(pool.breakers.open_for(demand.model, at))
    waits: Room | None = None
    idle_s = pool.usage.idle_gib_s
    can_sleep = pool.limits.sleep and any(each.sleep_levels for each in pool.replicas.values())
    for sleep in (True, False) if can_sleep else (False,):
        there = residents(sleep)
        rooms = [Room(place(demand, pool.ledger, there, claimed, barred=barred, idle_gib_s=idle_s), False, sleep)]
        if asleep is not None and asleep.devices not in barred:
            missing = pool.still_missing(asleep)
            others = [each for each in there if each.id != asleep.id]
            rooms.insert(0, Room(place(missing, pool.ledger, others, claimed, only=asleep.devices), True, sleep))
        fitting = [each for each in rooms if isinstance(each.at, Fits)]
        if not any(isinstance(each.at, Fits) and not each.at.victims for each in fitting):
            # What is already on its way back goes before new victims, here or there.
            soon = (each for each in rooms if isinstance(each.at, MustWait) and each.at.soon)
            if comes_back := next(soon, None):
                return comes_back
        if fitting:
            return min(fitting, key=lambda each: _costs_s(each, pool.usage, demand, there))
        for room in rooms:
            if waits is None or _hope(room) > _hope(waits):
                waits = room
    assert waits is not None, "the loop runs at least once"
    return waits


def _hope(room: Room) -> int:
    """Of places that have no room: first those where it will be made, if need be by whoever is in the way. Where the
    sleep of all would not free enough, their end may."""
    match room.at:
        case MustWait(drain=drain, soon=soon) if drain or soon:
            return 3
        case MustWait(out=()):
            return 2
        case MustWait():
            return 1
    return 0


def _costs_s(room: Room, usage: Usage, demand: Demand, there: list[Resident]) -> float:
    """Seconds until it serves, and those that the loss of who makes room is expected to cost."""
    assert isinstance(room.at, Fits), "only what fits has a price"
    victims = set(room.at.victims)
    losses_s = sum(each.loss_s for each in there if each.id in victims)
    return takes_s(usage, demand, asleep=room.wakes) + losses_s
