"""A model whose engine has the shape of an idle one's begins in that one's, where this costs fewer seconds."""

from dataclasses import replace

import pytest

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.lifecycle import State
from heliosd.core.messages import (
    Demand,
    DevicesFound,
    Event,
    Footprint,
    Grant,
    Hold,
    Limits,
    LimitsChanged,
    ModelsWanted,
    ReplicaBecameReady,
    ReplicaDied,
    ReplicaExited,
    ReplicaProgressed,
    RequestArrived,
    RequestReleased,
    StartReplica,
    StopReplica,
    UsageSeeded,
    Wanted,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.start_forecast import SeenStart
from heliosd.core.units import GiB


def demand(model: str, mould: str = "llama", gib: int = 40) -> Demand:
    return Demand(model, "rev", Footprint(gib * GiB, 10 * GiB, 2 * GiB), keep_alive_s=float("inf"), mould=mould)


def node(first: Demand, *, swaps: bool = True) -> Scheduler:
    """One card, on which the first model is ready and idle."""
    scheduler = Scheduler(Limits(safety_ratio=0.0))
    scheduler.handle(DevicesFound(0.0, (Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", 80 * GiB),)))
    scheduler.handle(RequestArrived(0.0, Ticket("t0"), first.model, first))
    scheduler.handle(ReplicaBecameReady(10.0, ReplicaId("r1"), first.per_device, swaps=swaps))
    scheduler.handle(RequestReleased(11.0, Ticket("t0")))
    return scheduler


def asked(scheduler: Scheduler, wanted: Demand, at: float = 100.0) -> StartReplica | None:
    commands = scheduler.handle(RequestArrived(at, Ticket("t1"), wanted.model, wanted))
    return next((each for each in commands if isinstance(each, StartReplica)), None)


def test_it_takes_over_the_engine_of_an_idle_one_of_the_same_mould() -> None:
    scheduler = node(demand("a"))
    start = asked(scheduler, demand("b"))
    assert start is not None
    assert (start.takes_over, start.devices) == ("r1", ("g0",))
    assert "takes over the engine of r1 (a)" in start.reason
    assert list(scheduler.replicas) == [start.replica], "the other one's life is over"
    assert scheduler.ledger.free_bytes(DeviceId("g0")) == 28 * GiB, "booked once"
    commands = scheduler.handle(ReplicaBecameReady(100.4, start.replica, demand("b").per_device, swaps=True))
    assert [each.ticket for each in commands if isinstance(each, Grant)] == ["t1"]
    assert scheduler.usage.swap("b", 0, 9.0) == pytest.approx(0.4)
    assert "b" not in scheduler.usage.reload_s, "a swap says nothing about how long a start takes"


def test_the_kv_cache_stays_as_it_is() -> None:
    larger = demand("a")
    larger = replace(larger, per_device=replace(larger.per_device, kv_cache_bytes=30 * GiB))
    start = asked(node(larger), demand("b"))
    assert start is not None
    assert start.demand.per_device.kv_cache_bytes == 30 * GiB


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (demand("a", mould="qwen"), demand("b")),
        (demand("a", mould=""), demand("b", mould="")),
        (demand("a", gib=30), demand("b", gib=70)),
    ],
    ids=["another mould", "no mould", "too large"],
)
def test_other_shapes_start_afresh(there: Demand, wanted: Demand) -> None:
    scheduler = node(there)
    commands = scheduler.handle(RequestArrived(100.0, Ticket("t1"), "b", wanted))
    assert not [each for each in commands if isinstance(each, StartReplica)]


def test_an_engine_that_cannot_is_stopped() -> None:
    scheduler = node(demand("a"), swaps=False)
    commands = scheduler.handle(RequestArrived(100.0, Ticket("t1"), "b", demand("b")))
    assert [each.replica for each in commands if isinstance(each, StopReplica)] == ["r1"]


def test_one_that_works_or_is_pinned_is_left_alone() -> None:
    busy = node(demand("a"))
    busy.handle(RequestArrived(50.0, Ticket("t2"), "a", demand("a")))
    assert asked(busy, demand("b")) is None
    pinned = node(demand("a"))
    pinned.handle(ModelsWanted(50.0, (Wanted(demand("a"), 1),)))
    assert asked(pinned, demand("b")) is None


def test_switched_off_nobody_is_taken_over() -> None:
    scheduler = node(demand("a"))
    scheduler.handle(LimitsChanged(50.0, Limits(safety_ratio=0.0, hot_swap=False)))
    assert asked(scheduler, demand("b")) is None


def test_with_free_room_both_stay() -> None:
    small = demand("a", gib=10)
    start = asked(node(small), demand("b", gib=10))
    assert start is not None
    assert start.takes_over is None


@pytest.mark.parametrize("event", [ReplicaDied(100.1, ReplicaId("r1")), ReplicaExited(100.1, ReplicaId("r1"), None)])
def test_news_of_the_one_that_was_taken_over_changes_nothing(event: Event) -> None:
    scheduler = node(demand("a"))
    start = asked(scheduler, demand("b"))
    assert start is not None
    assert scheduler.handle(event) == []
    assert scheduler.replicas[start.replica].state is State.STARTING


def test_who_waits_for_a_hot_swap_is_told_by_its_phases() -> None:
    scheduler = node(demand("a"))
    phases = (("tokenizer", 0.2), ("weights", 4.0), ("check", 1.0))
    first = asked(scheduler, demand("b"))
    assert first is not None
    scheduler.handle(ReplicaBecameReady(105.2, first.replica, demand("b").per_device, swaps=True, phases=phases))
    scheduler.handle(RequestReleased(106.0, Ticket("t1")))
    commands = scheduler.handle(RequestArrived(200.0, Ticket("t2"), "a", demand("a")))
    second = next(each for each in commands if isinstance(each, StartReplica))
    scheduler.handle(ReplicaBecameReady(205.0, second.replica, demand("a").per_device, swaps=True, phases=phases))
    scheduler.handle(RequestReleased(206.0, Ticket("t2")))
    commands = scheduler.handle(RequestArrived(300.0, Ticket("t3"), "b", demand("b")))
    third = next(each for each in commands if isinstance(each, StartReplica))
    assert third.takes_over == second.replica
    assert scheduler.snapshot(300.0).waiting[0].eta_s == pytest.approx(5.2)
    (told,) = scheduler.handle(ReplicaProgressed(301.0, third.replica, "tokenizer"))
    assert isinstance(told, Hold)
    assert told.reason == f"{third.replica} is starting: weights begins, 5 of 5 s left"
    assert told.eta_s == pytest.approx(5.0)
    scheduler.handle(ReplicaProgressed(302.0, third.replica, "weights"))
    assert scheduler.snapshot(302.0).waiting[0].eta_s == pytest.approx(1.0)


def test_what_another_life_saw_of_swaps_is_known_in_this_one() -> None:
    seen = SeenStart((("weights", 4.0), ("check", 1.0)), 40 * GiB, "simulated")
    scheduler = node(demand("a"))
    scheduler.handle(UsageSeeded(50.0, 1e9, (), (), (("b", seen),)))
    assert scheduler.usage.swap("b", 0, 9.0) == pytest.approx(5.0)
    assert "b" not in scheduler.usage.starts.starts
