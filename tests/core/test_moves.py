"""A victim that is likely to be asked for again starts elsewhere at once, where it has room."""

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    Command,
    Demand,
    DevicesFound,
    Footprint,
    Limits,
    ReplicaBecameReady,
    ReplicaExited,
    RequestArrived,
    RequestReleased,
    StartReplica,
    StopAsked,
    StopReplica,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB


def demand(model: str, gib: int) -> Demand:
    return Demand(model, "rev", Footprint(gib * GiB, 0, 0), keep_alive_s=float("inf"))


def ask(scheduler: Scheduler, at: float, wanted: Demand, ready_s: float = 10.0, *, stays: bool = False) -> str:
    """One request from its arrival to its end, if it has one; returns the replica that was started for it, if any."""
    ticket = Ticket(f"{wanted.model}-{at}")
    commands = scheduler.handle(RequestArrived(at, ticket, wanted.model, wanted))
    started = [each.replica for each in commands if isinstance(each, StartReplica)]
    for replica in started:
        scheduler.handle(ReplicaBecameReady(at + ready_s, replica, wanted.per_device))
    if not stays:
        scheduler.handle(RequestReleased(at + ready_s, ticket))
    return started[0] if started else ""


def room_for_large(asks: int) -> list[Command]:
    scheduler = Scheduler(Limits(safety_ratio=0.0))
    cards = (Device(DeviceId(name), DeviceKind.SIMULATED, "card", 80 * GiB) for name in ("g0", "g1"))
    scheduler.handle(DevicesFound(0.0, tuple(cards)))
    ask(scheduler, 0.0, demand("wide", 65), stays=True)
    gap = ask(scheduler, 20.0, demand("gap", 12))
    for number in range(asks):
        ask(scheduler, 40.0 + number, demand("hot", 12), ready_s=10.0 if number == 0 else 0.5)
    scheduler.handle(StopAsked(100.0, ReplicaId(gap)))
    scheduler.handle(ReplicaExited(101.0, ReplicaId(gap), None))
    return scheduler.handle(RequestArrived(102.0, Ticket("t"), "large", demand("large", 75)))


def test_who_is_asked_for_all_the_time_moves() -> None:
    commands = room_for_large(asks=40)
    (start,) = [each for each in commands if isinstance(each, StartReplica)]
    (stop,) = [each for each in commands if isinstance(each, StopReplica)]
    assert (start.demand.model, start.devices) == ("hot", ("g0",))
    assert "moves from g1 to g0: room for large" in start.reason
    assert stop.replica == "r3"


def test_who_was_asked_for_once_only_makes_room() -> None:
    commands = room_for_large(asks=1)
    assert not [each for each in commands if isinstance(each, StartReplica)]
    assert [each.replica for each in commands if isinstance(each, StopReplica)] == ["r3"]
