"""What scenarios cannot say in a line."""

from dataclasses import replace

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    Demand,
    DevicesFound,
    Footprint,
    Hold,
    Limits,
    LimitsChanged,
    ModelsChanged,
    ReplicaBecameReady,
    ReplicaDied,
    ReplicaExited,
    RequestArrived,
    RequestReleased,
    StartReplica,
    StopReplica,
    Tick,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB

OLD = Demand("llama", "old", Footprint(50 * GiB, 0, 0), keep_alive_s=10.0)
R1 = ReplicaId("r1")


def scheduler_with(*demands: Demand) -> Scheduler:
    """One device of 100 GiB, and a ready, idle replica of each demand since time 0."""
    scheduler = Scheduler(Limits(safety_ratio=0.0))
    scheduler.handle(DevicesFound(0.0, (Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", 100 * GiB),)))
    for number, demand in enumerate(demands, start=1):
        scheduler.handle(RequestArrived(0.0, Ticket(f"t{number}"), demand.model, demand))
        scheduler.handle(ReplicaBecameReady(0.0, ReplicaId(f"r{number}"), demand.per_device))
        scheduler.handle(RequestReleased(0.0, Ticket(f"t{number}")))
    return scheduler


def test_an_idle_replica_of_an_older_revision_expires_while_the_newer_one_is_waited_for() -> None:
    scheduler = scheduler_with(OLD)
    newer = replace(OLD, revision="new", per_device=Footprint(60 * GiB, 0, 0))
    commands = scheduler.handle(RequestArrived(20.0, Ticket("t9"), "llama", newer))
    assert any(isinstance(command, StopReplica) for command in commands)
    assert scheduler.next_wakeup is None


def test_a_changed_keep_alive_holds_for_replicas_that_run() -> None:
    scheduler = scheduler_with(replace(OLD, keep_alive_s=float("inf")))
    assert scheduler.next_wakeup is None
    scheduler.handle(LimitsChanged(1.0, Limits(), ((R1, 5.0),)))
    assert scheduler.next_wakeup == 5.0
    assert any(isinstance(command, StopReplica) for command in scheduler.handle(Tick(5.0)))


def test_another_store_or_configuration_forgives_failures() -> None:
    for change in (ModelsChanged(1.5), LimitsChanged(1.5, Limits())):
        scheduler = scheduler_with()
        scheduler.handle(RequestArrived(0.0, Ticket("t1"), "llama", OLD))
        scheduler.handle(ReplicaExited(1.0, R1, "bad weights"))
        (held,) = scheduler.handle(RequestArrived(1.2, Ticket("t2"), "llama", OLD))
        assert isinstance(held, Hold)
        assert any(isinstance(command, StartReplica) for command in scheduler.handle(change))


def test_the_room_of_a_dead_replica_is_waited_for_before_others_have_to_go() -> None:
    scheduler = scheduler_with(OLD, replace(OLD, model="idle", per_device=Footprint(40 * GiB, 0, 0)))
    scheduler.handle(RequestArrived(1.0, Ticket("t8"), "llama", OLD))
    scheduler.handle(ReplicaDied(2.0, R1))
    commands = scheduler.handle(RequestArrived(2.0, Ticket("t9"), "llama", OLD))
    assert not any(isinstance(command, StopReplica) for command in commands)
    commands = scheduler.handle(ReplicaExited(3.0, R1, "killed"))
    assert any(isinstance(command, StartReplica) for command in commands)
