"""What a reading of the whole change found: each of these once went wrong."""

from dataclasses import replace

from heliosd.core.hardware import Device, DeviceKind, DeviceReading, HostReading
from heliosd.core.ledger import Ledger
from heliosd.core.lifecycle import State
from heliosd.core.messages import (
    Command,
    Demand,
    DevicesFound,
    DevicesRead,
    DrainReplica,
    Footprint,
    Limits,
    LimitsChanged,
    ModelsWanted,
    Priority,
    Refuse,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaSlept,
    RequestArrived,
    RequestReleased,
    SleepAsked,
    SleepReplica,
    StartReplica,
    StopReplica,
    Terms,
    Tick,
    WakeReplica,
    Wanted,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB

LIMITS = Limits(safety_ratio=0.0, host_bytes=200 * GiB)


def demand(model: str, gib: int) -> Demand:
    return Demand(model, "rev", Footprint(gib * GiB, 0, 0), keep_alive_s=float("inf"))


def node(*devices: str, limits: Limits = LIMITS) -> Scheduler:
    scheduler = Scheduler(limits)
    cards = (Device(DeviceId(name), DeviceKind.SIMULATED, "card", 80 * GiB) for name in devices)
    scheduler.handle(DevicesFound(0.0, tuple(cards)))
    return scheduler


def served(scheduler: Scheduler, at: float, wanted: Demand, levels: frozenset[int] = frozenset({1, 2})) -> ReplicaId:
    """One request, from its start to its end."""
    ticket = Ticket(f"{wanted.model}-{at}")
    commands = scheduler.handle(RequestArrived(at, ticket, wanted.model, wanted))
    (start,) = [each for each in commands if isinstance(each, StartReplica)]
    scheduler.handle(ReplicaBecameReady(at + 5, start.replica, wanted.per_device, levels))
    scheduler.handle(RequestReleased(at + 5, ticket))
    return start.replica


def asleep(scheduler: Scheduler, at: float, replica: ReplicaId, level: int, host_gib: int) -> None:
    (sleep,) = [each for each in scheduler.handle(SleepAsked(at, replica)) if isinstance(each, SleepReplica)]
    scheduler.handle(ReplicaSlept(at + 1, sleep.replica, level, Footprint(0, 0, GiB), host_gib * GiB))


def stopped(commands: list[Command]) -> list[ReplicaId]:
    return [each.replica for each in commands if isinstance(each, StopReplica)]


def test_who_makes_way_in_a_line_that_is_too_long_is_told_so() -> None:
    scheduler = node("g0")
    large = demand("large", 70)
    served(scheduler, 0.0, large)
    scheduler.handle(RequestArrived(10.0, Ticket("holds"), "large", large))
    for number in range(4):
        low = Terms(priority=Priority.LOW)
        scheduler.handle(RequestArrived(11.0, Ticket(f"t{number}"), "other", demand("other", 60), terms=low))
    scheduler.handle(LimitsChanged(12.0, replace(LIMITS, queue_length=2)))
    high = Terms(priority=Priority.HIGH)
    commands = scheduler.handle(RequestArrived(13.0, Ticket("high"), "other", demand("other", 60), terms=high))
    assert [each.ticket for each in commands if isinstance(each, Refuse)] == ["t3"]
    assert set(scheduler.queue) == {"t0", "t1", "t2", "high"}


def test_a_pin_that_starts_elsewhere_lets_its_sleeper_go_and_stays() -> None:
    scheduler = node("g0", "g1")
    pinned = demand("pinned", 50)
    sleeper = served(scheduler, 0.0, pinned)
    asleep(scheduler, 10.0, sleeper, 1, 50)
    served(scheduler, 20.0, demand("other", 70))
    scheduler.handle(RequestArrived(30.0, Ticket("holds"), "other", demand("other", 70)))
    commands = scheduler.handle(ModelsWanted(31.0, (Wanted(pinned, 1),)))
    (started,) = [each.replica for each in commands if isinstance(each, StartReplica)]
    assert stopped(commands) == [sleeper]
    scheduler.handle(ReplicaBecameReady(40.0, started, pinned.per_device))
    assert scheduler.pool.pinned() == {started}


def test_only_as_many_sleepers_go_as_free_what_the_host_lacks() -> None:
    scheduler = node("g0", "g1", "g2")
    replicas = [served(scheduler, 20.0 * number, demand(f"m{number}", 30)) for number in range(3)]
    asleep(scheduler, 100.0, replicas[0], 2, 0)
    asleep(scheduler, 102.0, replicas[1], 1, 30)
    asleep(scheduler, 104.0, replicas[2], 1, 30)
    short = HostReading(1000 * GiB, 45 * GiB)  # 5 GiB below the reserve
    first = stopped(scheduler.handle(DevicesRead(110.0, (), (), short)))
    assert len(first) == 1
    assert first[0] in replicas[1:], "who holds nothing of it frees nothing"
    assert not stopped(scheduler.handle(DevicesRead(115.0, (), (), short))), "what is on its way back counts"


def test_what_is_foreign_is_not_forgotten_while_a_replica_gives_its_memory_back() -> None:
    ledger, r1, g0 = Ledger(safety_ratio=0.0), ReplicaId("r1"), DeviceId("g0")
    ledger.devices = {g0: Device(g0, DeviceKind.CUDA, "card", 80 * GiB)}
    ledger.book(r1, (g0,), Footprint(42 * GiB, 0, 0))
    ledger.measure(r1, Footprint(42 * GiB, 0, 0))
    ledger.read([DeviceReading(g0, 62 * GiB, 18 * GiB)], {})
    assert ledger.foreign[g0] == 20 * GiB
    ledger.read([DeviceReading(g0, 20 * GiB, 60 * GiB)], {}, leaving={r1})
    assert ledger.foreign[g0] == 20 * GiB


def test_room_that_comes_back_goes_before_new_victims() -> None:
    scheduler = node("g0", "g1")
    sleeper = served(scheduler, 0.0, demand("m", 50))
    asleep(scheduler, 10.0, sleeper, 1, 50)
    victims = [served(scheduler, 20.0 + number, demand(f"v{number}", 60), frozenset()) for number in range(2)]
    first = stopped(scheduler.handle(RequestArrived(60.0, Ticket("t"), "m", demand("m", 50))))
    assert len(first) == 1
    assert first[0] in victims
    again = stopped(scheduler.handle(RequestArrived(60.5, Ticket("u"), "m", demand("m", 50))))
    assert not again, "one of them is enough"
    assert scheduler.replicas[sleeper].state is State.ASLEEP


HOT = replace(demand("hot", 20), max_num_seqs=1, max_replicas=2)


def test_a_second_replica_is_the_one_that_sleeps() -> None:
    scheduler = node("g0", "g1")
    first = served(scheduler, 0.0, HOT)
    scheduler.handle(RequestArrived(6.0, Ticket("a"), "hot", HOT))
    scheduler.handle(RequestArrived(7.0, Ticket("b"), "hot", HOT))
    (second,) = [each.replica for each in scheduler.handle(Tick(13.0)) if isinstance(each, StartReplica)]
    scheduler.handle(ReplicaBecameReady(18.0, second, HOT.per_device, frozenset({1, 2})))
    scheduler.handle(RequestReleased(20.0, Ticket("b")))
    asleep(scheduler, 21.0, second, 1, 20)
    scheduler.handle(RequestArrived(30.0, Ticket("c"), "hot", HOT))
    commands = scheduler.handle(Tick(36.0))
    assert [each.replica for each in commands if isinstance(each, WakeReplica)] == [second]
    assert not [each for each in commands if isinstance(each, StartReplica)]
    assert scheduler.replicas[first].leases == {"a"}


def test_a_second_replica_leaves_the_room_that_an_older_request_waits_for() -> None:
    scheduler = node("g0", "g1")
    full, other, large = demand("full", 55), demand("other", 40), demand("large", 70)
    for at, model in enumerate((HOT, full, other)):
        replica = served(scheduler, 10.0 * at, model)
        scheduler.handle(RequestArrived(10.0 * at + 6, Ticket(model.model), model.model, model))
        assert scheduler.replicas[replica].devices == (("g1",) if model is other else ("g0",))
    scheduler.handle(RequestArrived(40.0, Ticket("older"), "large", large))
    scheduler.handle(RequestArrived(41.0, Ticket("younger"), "hot", HOT))
    commands = [*scheduler.handle(Tick(46.0)), *scheduler.handle(Tick(47.0))]
    assert [each.replica for each in commands if isinstance(each, DrainReplica)] == ["r3"]
    assert not [each for each in commands if isinstance(each, StartReplica)], "40 GiB of g1 are free, and spoken for"
    scheduler.handle(RequestReleased(48.0, Ticket("other")))
    commands = scheduler.handle(ReplicaExited(49.0, ReplicaId("r3"), None))
    assert [each.demand.model for each in commands if isinstance(each, StartReplica)] == ["large"]
