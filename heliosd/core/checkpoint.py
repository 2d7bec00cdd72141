"""The scheduler's whole state as plain values, and a scheduler made of them again: replay begins with one."""

from dataclasses import fields
from typing import Any

from heliosd.core.codec import Codec, Plain
from heliosd.core.messages import Demand
from heliosd.core.names import ReplicaId
from heliosd.core.scheduler import Scheduler

_COUNTER = "_numbers"


def codec() -> Codec:
    """One that tells each demand once: it is long, and every request carries it."""
    return Codec(shared=(Demand,))


def state_of(scheduler: Scheduler, with_codec: Codec) -> Plain:
    """All it knows, but for the number of its next replica."""
    return {name: with_codec.encode(kind, getattr(scheduler, name)) for name, kind in _state()}


def restored(plain: Plain, last_replica: int, with_codec: Codec) -> Scheduler:
    """A scheduler that decides as the other would have from there on. Raises ValueError."""
    scheduler = Scheduler()
    known = dict(_state())
    if wrong := sorted(known.keys() ^ plain.keys()):
        raise ValueError(f"cannot read the state of a scheduler: `{wrong[0]}` is in only one of the two versions")
    for name, kind in known.items():
        setattr(scheduler, name, with_codec.decode(kind, plain[name]))
    scheduler.number_after(last_replica)
    return scheduler


def number_of(replica: ReplicaId) -> int:
    """`r7`: 7."""
    return int(replica.removeprefix("r"))


def _state() -> list[tuple[str, Any]]:
    return [(each.name, each.type) for each in fields(Scheduler) if each.name != _COUNTER]
