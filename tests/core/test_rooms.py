"""Where there is no room, somebody is asked to make it, in the way that makes enough."""

from dataclasses import replace

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    Demand,
    DevicesFound,
    DrainReplica,
    Footprint,
    Limits,
    ReplicaBecameReady,
    RequestArrived,
    RequestReleased,
    StopReplica,
    Tick,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB


def test_who_would_not_free_enough_asleep_is_stopped_when_in_the_way() -> None:
    scheduler = Scheduler(Limits(safety_ratio=0.0, patience_s=5.0, host_bytes=100 * GiB))
    scheduler.handle(DevicesFound(0.0, (Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", 8 * GiB),)))
    busy, other = (Demand(name, "rev", Footprint(GiB, 3 * GiB, 2 * GiB)) for name in ("busy", "other"))
    scheduler.handle(RequestArrived(0.0, Ticket("t0"), "busy", busy))
    scheduler.handle(ReplicaBecameReady(1.0, ReplicaId("r1"), busy.per_device, frozenset({1, 2})))
    scheduler.handle(
        RequestArrived(2.0, Ticket("t1"), "other", replace(other, per_device=Footprint(GiB, 4 * GiB, 2 * GiB)))
    )
    assert scheduler.next_wakeup == 7.0, "nobody would ever be asked to make way"
    commands = scheduler.handle(Tick(7.0))
    assert [each.replica for each in commands if isinstance(each, DrainReplica)] == ["r1"]
    commands = scheduler.handle(RequestReleased(8.0, Ticket("t0")))
    assert [each.replica for each in commands if isinstance(each, StopReplica)] == ["r1"]
