"""What the scheduler knows of a request, a model and a replica is what its decisions rest on."""

from dataclasses import replace

import pytest

from heliosd.core.crowd import TELLING
from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    Demand,
    DevicesFound,
    Footprint,
    Limits,
    ModelsPlaced,
    ReplicaBecameReady,
    ReplicaExited,
    RequestArrived,
    RequestReleased,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.places import Placed, TierSpeed
from heliosd.core.retention import Speed, Tier
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB
from heliosd.explain import Facts, facts

HOT = Demand("hot", "r", Footprint(40 * GiB, 0, 0))
COLD = replace(HOT, model="cold")
NOTHING = Facts(None, None, None)


@pytest.fixture
def scheduler() -> Scheduler:
    """One device of 100 GiB, full with an idle replica that was asked for ten times and one that was asked for once."""
    it = Scheduler(Limits(safety_ratio=0.0, residence_s=0.0))
    it.handle(DevicesFound(0.0, (Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", 100 * GiB),)))
    for replica, demand, times in (("r1", HOT, 10), ("r2", COLD, 1)):
        tickets = [Ticket(f"{demand.model}{number}") for number in range(times)]
        for ticket in tickets:
            it.handle(RequestArrived(0.0, ticket, demand.model, demand))
        it.handle(ReplicaBecameReady(4.0, ReplicaId(replica), demand.per_device))
        for ticket in tickets:
            it.handle(RequestReleased(4.0, ticket))
    return it


def test_the_less_wanted_is_the_next_to_go_and_the_arithmetic_adds_up(scheduler: Scheduler) -> None:
    hot, cold = facts(scheduler, "r1", 5.0), facts(scheduler, "r2", 5.0)
    assert hot.worth and cold.worth and hot.appetite and cold.appetite
    assert (cold.worth.rank, hot.worth.rank, hot.worth.of) == (1, 2, 2)
    assert [rival.id for rival in hot.worth.before] == ["r2"] and cold.worth.before == ()
    for each in (hot, cold):
        assert each.appetite.reload_s == 4.0
        assert each.worth.loss_s == pytest.approx(each.appetite.reuse_ratio * 4.0)
        assert (each.worth.slower_s, each.worth.frees_bytes) == (pytest.approx(4.0), 40 * GiB)
    assert hot.appetite.asked_per_minute == pytest.approx(10 * cold.appetite.asked_per_minute)
    assert facts(scheduler, "hot", 5.0).appetite == hot.appetite


def test_one_that_works_is_protected(scheduler: Scheduler) -> None:
    scheduler.handle(RequestArrived(5.0, Ticket("t"), "cold", COLD))
    worth = facts(scheduler, "r2", 5.0).worth
    assert worth and worth.protected == "it works on 1 requests" and worth.rank == 2


def test_one_that_starts_is_not_asked_to_go(scheduler: Scheduler) -> None:
    scheduler.handle(RequestArrived(5.0, Ticket("t"), "small", Demand("small", "r", Footprint(GiB, 0, 0))))
    worth = facts(scheduler, "r3", 5.0).worth
    assert worth and worth.rank is None and worth.protected == "it is starting"


def test_a_request_that_waits_knows_its_place_and_when(scheduler: Scheduler) -> None:
    large = Demand("large", "r", Footprint(90 * GiB, 0, 0))
    for name in ("t1", "t2"):
        scheduler.handle(RequestArrived(5.0, Ticket(name), "large", large))
    waits = facts(scheduler, "t2", 7.5).waits
    assert waits and (waits.model, waits.waited_s, waits.position) == ("large", 2.5, 1)
    assert waits.reason and waits.eta_s is not None and waits.eta_s > 0


def test_a_model_that_failed_says_where_and_until_when(scheduler: Scheduler) -> None:
    scheduler.handle(RequestArrived(5.0, Ticket("t"), "bad", Demand("bad", "r", Footprint(GiB, 0, 0))))
    scheduler.handle(ReplicaExited(6.0, ReplicaId("r3"), "no such kernel"))
    appetite = facts(scheduler, "bad", 6.5).appetite
    assert appetite
    (barred,) = appetite.barred
    assert (barred.devices, barred.failures, barred.retry_in_s, barred.cause) == (("g0",), 1, 1.5, "no such kernel")


def test_of_a_stranger_nothing_is_known(scheduler: Scheduler) -> None:
    assert facts(scheduler, "r9", 5.0) == facts(scheduler, "org/none", 5.0) == NOTHING


def test_where_a_model_lies_and_how_many_come_at_once_is_told(scheduler: Scheduler) -> None:
    unknown = facts(scheduler, "hot", 5.0).appetite
    assert unknown and (unknown.tier, unknown.read_s, unknown.at_once) == (None, None, None)
    speeds = (TierSpeed(Tier.DISK, Speed(0.0, GiB)),)
    scheduler.handle(ModelsPlaced(6.0, (Placed("hot", ((Tier.DISK, 40 * GiB),)),), speeds))
    for number in range(TELLING):
        scheduler.handle(RequestArrived(7.0, Ticket(f"more{number}"), "hot", HOT))
    told = facts(scheduler, "r1", 8.0).appetite
    assert told and (told.tier, told.read_s, told.at_once) == ("disk", 40.0, 64)
