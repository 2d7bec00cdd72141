"""A busy replica whose KV cache limits it is restarted with a larger one, when a neighbour has left and many wait."""

from dataclasses import replace

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    Command,
    Demand,
    DevicesFound,
    DrainReplica,
    Footprint,
    Limits,
    ModelsKnown,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaPressed,
    RequestArrived,
    RequestReleased,
    StartReplica,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB

R1 = ReplicaId("r1")
BUSY = Demand("busy", "rev", Footprint(20 * GiB, 10 * GiB, 0), max_num_seqs=8, kv_most_bytes=100 * GiB)


def pressed(scheduler: Scheduler, until_s: int) -> list[Command]:
    """A minute and more of a cache that is full; sequences are put back all the time."""
    commands: list[Command] = []
    for at in range(20, until_s):
        commands += scheduler.handle(ReplicaPressed(float(at), R1, 8, 0, 0.97, preemptions=at))
    return commands


def busy_node(waiting: int, gib: int = 80) -> Scheduler:
    scheduler = Scheduler(Limits(safety_ratio=0.0))
    scheduler.handle(DevicesFound(0.0, (Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", gib * GiB),)))
    scheduler.handle(ModelsKnown(0.0, (("busy", 20 * GiB), ("other", 20 * GiB))))
    for number in range(8 + waiting):
        scheduler.handle(RequestArrived(1.0, Ticket(f"t{number}"), "busy", BUSY))
    scheduler.handle(ReplicaBecameReady(10.0, R1, BUSY.per_device))
    return scheduler


def test_a_larger_one_starts_beside_it_where_there_is_room() -> None:
    commands = pressed(busy_node(waiting=10), 120)
    (drain,) = [each for each in commands if isinstance(each, DrainReplica)]
    (start,) = [each for each in commands if isinstance(each, StartReplica)]
    assert drain.reason.startswith("its KV cache of 10.0 GiB has limited it for")
    assert "10 requests wait; it starts again in" in drain.reason
    assert start.demand.per_device.kv_cache_bytes == 30 * GiB


def test_else_it_starts_again_in_its_own_place() -> None:
    scheduler = busy_node(waiting=10, gib=55)
    commands = pressed(scheduler, 120)
    (drain,) = [each for each in commands if isinstance(each, DrainReplica)]
    assert "with 35.0 GiB" in drain.reason
    assert not [each for each in commands if isinstance(each, StartReplica)]
    for number in range(8):
        scheduler.handle(RequestReleased(121.0, Ticket(f"t{number}")))
    (start,) = [each for each in scheduler.handle(ReplicaExited(122.0, R1, None)) if isinstance(each, StartReplica)]
    assert start.demand.per_device.kv_cache_bytes == 35 * GiB


def test_not_while_few_wait_or_others_wait_too_or_it_cannot_grow() -> None:
    assert not [each for each in pressed(busy_node(waiting=0), 120) if isinstance(each, DrainReplica)]
    scheduler = busy_node(waiting=10)
    other = Demand("other", "rev", Footprint(70 * GiB, 0, 0))
    scheduler.handle(RequestArrived(12.0, Ticket("o"), "other", other))
    drains = [each for each in pressed(scheduler, 120) if isinstance(each, DrainReplica)]
    assert all("in the way of other" in each.reason for each in drains)
    small = replace(BUSY, kv_most_bytes=12 * GiB)
    scheduler = Scheduler(Limits(safety_ratio=0.0))
    scheduler.handle(DevicesFound(0.0, (Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", 80 * GiB),)))
    for number in range(18):
        scheduler.handle(RequestArrived(1.0, Ticket(f"t{number}"), "busy", small))
    scheduler.handle(ReplicaBecameReady(10.0, R1, small.per_device))
    assert not [each for each in pressed(scheduler, 120) if isinstance(each, DrainReplica)]
