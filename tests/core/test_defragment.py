"""Moves that make a place large enough: found where there are any, the cheapest, in an order that works."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.core.defragment import MOST_MOVES, Plan, defragment
from heliosd.core.eviction import Resident
from heliosd.core.hardware import Device, DeviceKind, DeviceReading, LinkKind
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.units import GiB
from tests.effort import examples


class Fleet:
    """Cards of 80 GiB, and who is on them: `("r1", "g0", 30)` is idle and takes half a second for each GiB."""

    def __init__(self, count: int, *held: tuple[str, str, int], cards: str = "") -> None:
        self.ledger = Ledger(safety_ratio=0.0)
        for number in range(count):
            name = DeviceId(f"g{number}")
            self.ledger.devices[name] = Device(name, DeviceKind.CUDA, cards[number : number + 1] or "card", 80 * GiB)
        self.residents: dict[str, Resident] = {}
        self.reload_s: dict[ReplicaId, float] = {}
        for replica, device, size in held:
            self.add(replica, device, size)

    def add(self, name: str, device: str, size: int, *, busy: bool = False, ready: bool = True) -> None:
        where, footprint = tuple(DeviceId(each) for each in device.split("+")), Footprint(size * GiB, 0, 0)
        self.ledger.book(ReplicaId(name), where, footprint)
        self.residents[name] = Resident(ReplicaId(name), name, where, footprint, ready, False, busy, 0.0)
        self.reload_s[ReplicaId(name)] = size / 2

    def plan(self, size: int, devices: int = 1, claimed: frozenset[DeviceId] = frozenset()) -> Plan | None:
        demand = Demand("new", "rev", Footprint(size * GiB, 0, 0), devices)
        return defragment(demand, self.ledger, self.residents.values(), self.reload_s, claimed)

    def carried_out(self, plan: Plan) -> None:
        """Book every move in its order. Raises ValueError where one has no room."""
        for move in plan.moves:
            if move.copied:
                self.ledger.book(
                    ReplicaId(f"{move.replica} again"), (move.end,), self.residents[move.replica].per_device
                )
            self.ledger.release(move.replica)
        for move in plan.moves:
            if not move.copied:
                self.ledger.book(move.replica, (move.end,), self.residents[move.replica].per_device)


def moved(plan: Plan | None) -> list[tuple[str, str, str]]:
    return [(move.replica, move.start, move.end) for move in plan.moves] if plan else []


def test_two_halves_become_a_whole() -> None:
    fleet = Fleet(2, ("r1", "g0", 40), ("r2", "g1", 30))
    plan = fleet.plan(60)
    assert moved(plan) == [("r2", "g1", "g0")]
    assert plan is not None
    assert (plan.devices, plan.cost_s, plan.moves[0].copied) == (("g1",), 15.0, True)
    assert plan.reason == (
        "new needs 60.0 GiB on g1; at most 50.0 GiB are free on one device, 90.0 GiB on all 2; enough when these move: "
        "r2 (r2, 30.0 GiB, 15.0 s) from g1 to g0"
    )


def test_what_fits_or_cannot_fit_in_all_free_room_moves_nobody() -> None:
    assert Fleet(2, ("r1", "g0", 40)).plan(80) is None, "g1 is free"
    assert Fleet(2, ("r1", "g0", 60), ("r2", "g1", 60)).plan(50) is None, "40 GiB are free in all"
    assert Fleet(2, ("r1", "g0", 40), ("r2", "g1", 40)).plan(90) is None, "larger than a device"


def test_the_busy_the_pinned_sleepers_and_the_claimed_stay() -> None:
    fleet = Fleet(2)
    fleet.add("r1", "g0", 40, busy=True)
    fleet.add("r2", "g1", 40, ready=False)
    assert fleet.plan(60) is None
    fleet = Fleet(2, ("r1", "g0", 40), ("r2", "g1", 40))
    assert fleet.plan(60) is not None
    assert fleet.plan(60, claimed=frozenset({DeviceId("g0")})) is None
    fleet.ledger.sleeping |= {ReplicaId("r1"), ReplicaId("r2")}
    assert fleet.plan(60) is None


def test_another_card_and_one_that_fails_take_nobody_in() -> None:
    assert Fleet(2, ("r1", "g0", 40), ("r2", "g1", 40), cards="ab").plan(60) is None
    fleet = Fleet(3, ("r1", "g0", 40), ("r2", "g1", 40), ("r3", "g2", 60))
    fleet.ledger.readings[DeviceId("g1")] = DeviceReading(DeviceId("g1"), 0, 0, fault="lost")
    assert fleet.plan(60) is None


def test_one_makes_room_for_another_where_nothing_shorter_helps() -> None:
    """30 must leave g0, and g1 takes it in only when its 15 go to g2."""
    fleet = Fleet(3, ("a", "g0", 30))
    fleet.add("fixed1", "g1", 40, busy=True)
    fleet.add("b", "g1", 15)
    fleet.add("fixed2", "g2", 60, busy=True)
    plan = fleet.plan(80)
    assert sorted(moved(plan)) == [("a", "g0", "g1"), ("b", "g1", "g2")]
    assert plan is not None
    assert [(move.replica, move.copied) for move in plan.moves] == [("b", True), ("a", True)]


def test_of_two_that_change_places_one_must_stop_before_the_other_starts() -> None:
    fleet = Fleet(2, ("large", "g0", 50), ("small", "g1", 45))
    fleet.add("rest", "g1", 10, busy=True)
    plan = fleet.plan(34)
    assert plan is not None
    assert plan.devices == ("g0",)
    assert [(move.replica, move.copied) for move in plan.moves] == [("small", False), ("large", True)]
    fleet.carried_out(plan)
    assert fleet.ledger.free_bytes(DeviceId("g0")) == 35 * GiB


def test_a_model_over_two_devices_gets_both_and_nvlink_decides_between_equal_moves() -> None:
    fleet = Fleet(4, *((f"r{number}", f"g{number}", 30) for number in range(4)))
    for name, device in list(fleet.ledger.devices.items()):
        near = {"g0": "g3", "g3": "g0", "g1": "g2", "g2": "g1"}[name]
        fleet.ledger.devices[name] = Device(
            name, device.kind, device.name, device.capacity_bytes, links=((DeviceId(near), LinkKind.NVLINK),)
        )
    plan = fleet.plan(70, devices=2)
    assert plan is not None
    assert plan.devices in (("g0", "g3"), ("g1", "g2"))
    assert "NVLink" in plan.reason


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 10**9))
def test_a_plan_can_be_carried_out_and_makes_the_room(seed: int) -> None:
    rng = random.Random(seed)
    fleet = Fleet(rng.randint(2, 6))
    for number in range(rng.randint(2, 14)):
        device, size = f"g{rng.randrange(len(fleet.ledger.devices))}", rng.randint(4, 45)
        if fleet.ledger.free_bytes(DeviceId(device)) >= size * GiB:
            fleet.add(f"r{number}", device, size, busy=rng.random() < 0.3)
    size, devices = rng.randint(10, 80), rng.choice((1, 1, 2))
    plan = fleet.plan(size, devices)
    if plan is None:
        return
    assert 1 <= len(plan.moves) <= MOST_MOVES
    assert len({move.replica for move in plan.moves}) == len(plan.moves)
    assert not any(fleet.residents[move.replica].busy for move in plan.moves)
    fleet.carried_out(plan)
    fleet.ledger.book(ReplicaId("new"), plan.devices, Footprint(size * GiB, 0, 0))
