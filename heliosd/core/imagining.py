"""Where replicas would go, one after the other, and who would make room: a dry run on a copy of the ledger."""

from collections.abc import Iterable
from copy import copy

from heliosd.core.eviction import Resident
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand
from heliosd.core.names import ReplicaId
from heliosd.core.placement import Fits, Placement, place


def imagine(
    demand: Demand, count: int, ledger: Ledger, residents: Iterable[Resident], gone: ReplicaId | None = None
) -> list[Placement]:
    """The places of `count` more replicas, once `gone` is; ends with the first that has none."""
    there, imagined = [each for each in residents if each.id != gone], _copy(ledger)
    if gone is not None:
        imagined.release(gone)
    found: list[Placement] = []
    for number in range(count):
        at = place(demand, imagined, there)
        found.append(at)
        if not isinstance(at, Fits):
            break
        for victim in at.victims:
            imagined.release(victim)
        there = [each for each in there if each.id not in at.victims]
        name = ReplicaId(f"imagined {number}")
        imagined.book(name, at.devices, demand.per_device)
        there.append(
            Resident(
                id=name,
                model=demand.model,
                devices=at.devices,
                per_device=demand.per_device,
                ready=False,
                leaving=False,
                busy=True,
                last_used=0.0,
                loss_s=0.0,
                keeps_bytes=0,
                pinned=True,
            )
        )
    return found


def _copy(ledger: Ledger) -> Ledger:
    other = copy(ledger)
    other.promised, other.measured = dict(ledger.promised), dict(ledger.measured)
    other.staged, other.booked = dict(ledger.staged), dict(ledger.booked)
    other.sleeping = set(ledger.sleeping)
    return other
