"""Who cannot be served in time is told at once, the last in line first."""

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    Demand,
    DevicesFound,
    Footprint,
    Grant,
    Limits,
    Priority,
    RefusalCode,
    Refuse,
    ReplicaBecameReady,
    RequestArrived,
    RequestReleased,
    Terms,
    Tick,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB

MODEL = Demand("m", "rev", Footprint(10 * GiB, 0, 0), max_num_seqs=2)


def served(limits: Limits | None = None) -> Scheduler:
    """Two at a time, each for ten seconds, as it was seen; both places are taken."""
    scheduler = Scheduler(limits or Limits())
    scheduler.handle(DevicesFound(0.0, (Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", 80 * GiB),)))
    scheduler.handle(RequestArrived(0.0, Ticket("first"), "m", MODEL))
    scheduler.handle(ReplicaBecameReady(1.0, ReplicaId("r1"), MODEL.per_device))
    scheduler.handle(RequestReleased(11.0, Ticket("first")))
    for name in ("a", "b"):
        scheduler.handle(RequestArrived(11.0, Ticket(name), "m", MODEL))
    return scheduler


def test_who_would_come_too_late_is_refused_on_arrival_with_the_arithmetic() -> None:
    scheduler = served()
    for number in range(8):
        assert not scheduler.handle(RequestArrived(12.0, Ticket(f"t{number}"), "m", MODEL, 112.0))[1:]
    (refused,) = scheduler.handle(RequestArrived(12.0, Ticket("late"), "m", MODEL, 32.0))
    assert isinstance(refused, Refuse)
    assert refused.code is RefusalCode.OVERLOADED
    assert "8 requests go before, 2 are worked on at once for 10.0 s each, so it would wait 40 s of at most 20 s" in (
        refused.reason
    )
    assert refused.retry_after_s == 40.0
    assert "late" not in scheduler.queue


def test_without_a_deadline_or_while_it_starts_nobody_is_refused() -> None:
    scheduler = served()
    for number in range(50):
        scheduler.handle(RequestArrived(12.0, Ticket(f"t{number}"), "m", MODEL))
    assert len(scheduler.queue) == 50


def test_a_full_line_gives_its_last_place_to_a_higher_class() -> None:
    scheduler = served(Limits(queue_length=2))
    scheduler.handle(RequestArrived(12.0, Ticket("low"), "m", MODEL, terms=Terms(priority=Priority.LOW)))
    scheduler.handle(RequestArrived(12.0, Ticket("normal"), "m", MODEL))
    commands = scheduler.handle(RequestArrived(13.0, Ticket("high"), "m", MODEL, terms=Terms(priority=Priority.HIGH)))
    assert [each.ticket for each in commands if isinstance(each, Refuse)] == ["low"]
    assert set(scheduler.queue) == {"normal", "high"}
    (refused,) = [
        each for each in scheduler.handle(RequestArrived(14.0, Ticket("more"), "m", MODEL)) if isinstance(each, Refuse)
    ]
    assert (refused.ticket, refused.code) == ("more", RefusalCode.QUEUE_FULL)


def test_nobody_makes_way_for_one_who_would_come_too_late_all_the_same() -> None:
    scheduler = served(Limits(queue_length=4))
    for name in ("t1", "t2", "t3"):
        scheduler.handle(RequestArrived(12.0, Ticket(name), "m", MODEL, terms=Terms(priority=Priority.HIGH)))
    scheduler.handle(RequestArrived(12.0, Ticket("low"), "m", MODEL, terms=Terms(priority=Priority.LOW)))
    late = RequestArrived(13.0, Ticket("late"), "m", MODEL, 15.0, terms=Terms(priority=Priority.HIGH))
    refused = [each for each in scheduler.handle(late) if isinstance(each, Refuse)]
    assert [(each.ticket, each.code) for each in refused] == [("late", RefusalCode.OVERLOADED)]
    assert set(scheduler.queue) == {"t1", "t2", "t3", "low"}


def test_a_key_is_not_charged_for_what_was_refused_timed_out_or_left() -> None:
    """Each of them would have cost its key a hundred rounds, before the next request is served."""
    dear = Terms("a", work_tokens=100 * 4096)
    scheduler = served()
    never = Demand("never", "rev", Footprint(800 * GiB, 0, 0))
    scheduler.handle(RequestArrived(12.0, Ticket("refused"), "never", never, terms=dear))
    scheduler.handle(RequestArrived(12.0, Ticket("left"), "m", MODEL, terms=dear))
    scheduler.handle(RequestReleased(13.0, Ticket("left")))
    scheduler.handle(RequestArrived(13.0, Ticket("late"), "m", MODEL, 14.0, terms=dear))
    scheduler.handle(Tick(14.5))
    scheduler.handle(RequestArrived(15.0, Ticket("other"), "m", MODEL, terms=Terms("b", work_tokens=2 * 4096)))
    scheduler.handle(RequestArrived(15.0, Ticket("next"), "m", MODEL, terms=Terms("a", work_tokens=4096)))
    assert not {"refused", "left", "late"} & set(scheduler.queue)
    commands = scheduler.handle(RequestReleased(16.0, Ticket("a")))
    assert [each.ticket for each in commands if isinstance(each, Grant)] == ["next"]
