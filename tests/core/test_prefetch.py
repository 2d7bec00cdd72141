"""Which models are started before anyone asks, and at whose expense."""

from collections.abc import Iterable

import pytest

from heliosd.core.eviction import Resident
from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.prefetch import HYSTERESIS, RESIDENCE_S, Preload, propose
from heliosd.core.units import GiB
from heliosd.core.usage import Usage

NOW = 3555.0
"""Each `clock` was asked for every 600 s, the last time at 3000: the next is 45 s away."""


def a_demand(model: str, gib: int = 40, keep_alive_s: float = 300.0) -> Demand:
    return Demand(model, f"rev of {model}", Footprint(gib * GiB, 0, 0), keep_alive_s=keep_alive_s)


def a_ledger(*, devices: int = 1, foreign_gib: int = 0) -> Ledger:
    ids = [DeviceId(f"g{number}") for number in range(devices)]
    ledger = Ledger(0.0, {each: Device(each, DeviceKind.SIMULATED, "H100", 80 * GiB) for each in ids})
    ledger.foreign = dict.fromkeys(ids, foreign_gib * GiB)
    return ledger


def clocks(*models: str) -> Usage:
    usage = Usage()
    for turn in range(6):
        for model in models:
            usage.asked(model, turn * 600.0)
    for model in models:
        usage.started(model, 12.0)
    return usage


def idle(ledger: Ledger, model: str, *, gib: int = 60, loss_s: float = 0.0, last_used: float = 0.0) -> Resident:
    id_, footprint, devices = ReplicaId(f"r-{model}"), Footprint(gib * GiB, 0, 0), (DeviceId("g0"),)
    ledger.book(id_, devices, footprint)
    return Resident(id_, model, devices, footprint, True, False, False, last_used, loss_s)


def proposed(
    usage: Usage,
    demands: Iterable[Demand],
    ledger: Ledger,
    residents: Iterable[Resident] = (),
    *,
    at: float = NOW,
    most: int = 2,
    claimed: frozenset[DeviceId] = frozenset(),
    barred: frozenset[str] = frozenset(),
) -> list[Preload]:
    known = {each.model: each for each in demands}
    return propose(at, usage, known.get, ledger, residents, horizon_s=60.0, most=most, claimed=claimed, barred=barred)


def test_what_is_about_to_be_asked_for_starts_where_room_is_free() -> None:
    (preload,) = proposed(clocks("m"), [a_demand("m")], a_ledger())
    assert (preload.demand.model, preload.devices, preload.victims) == ("m", ("g0",), ())
    assert preload.gain_s > 0.3 * 12
    assert preload.reason.startswith("asked within 60 s with 0.")
    assert preload.reason.endswith(f"starts in 12.0 s: {preload.gain_s:.1f} s saved; room is free on g0")


@pytest.mark.parametrize("at", [3100.0, 3300.0])
def test_nothing_starts_long_before(at: float) -> None:
    assert proposed(clocks("m"), [a_demand("m")], a_ledger(), at=at) == []


def test_what_is_here_barred_unknown_or_not_to_be_kept_is_left_alone() -> None:
    usage, ledger = clocks("m"), a_ledger(devices=2)
    assert proposed(usage, [a_demand("other")], ledger) == []
    assert proposed(usage, [a_demand("m")], ledger, barred=frozenset({"m"})) == []
    assert proposed(usage, [a_demand("m", keep_alive_s=0.0)], ledger) == []
    assert proposed(usage, [a_demand("m")], ledger, [idle(ledger, "m")]) == []


def test_an_idle_replica_makes_room_if_its_loss_is_less_than_half_the_gain() -> None:
    usage = clocks("m")
    (free,) = proposed(usage, [a_demand("m")], a_ledger())
    for loss_s, goes in ((free.gain_s / HYSTERESIS * 0.9, True), (free.gain_s / HYSTERESIS * 1.1, False)):
        ledger = a_ledger()
        found = proposed(usage, [a_demand("m")], ledger, [idle(ledger, "cold", loss_s=loss_s)])
        assert [each.victims for each in found] == ([("r-cold",)] if goes else [])
        assert not found or f"cold (r-cold) {loss_s:.1f} s, less than half" in found[0].reason


def test_who_was_used_just_now_stays() -> None:
    for ago_s, goes in ((RESIDENCE_S - 1, False), (RESIDENCE_S + 1, True)):
        ledger = a_ledger()
        found = proposed(clocks("m"), [a_demand("m")], ledger, [idle(ledger, "cold", last_used=NOW - ago_s)])
        assert bool(found) is goes


def test_room_that_comes_back_anyway_is_waited_for() -> None:
    ledger = a_ledger()
    gone = idle(ledger, "leaving")
    leaving = Resident(gone.id, gone.model, gone.devices, gone.per_device, False, True, False, 0.0)
    assert proposed(clocks("m"), [a_demand("m")], ledger, [leaving]) == []


def test_no_more_than_asked_for_and_no_two_on_a_device() -> None:
    usage, demands = clocks("a", "b", "c"), [a_demand(name) for name in "abc"]
    assert len(proposed(usage, demands, a_ledger(devices=3), most=0)) == 0
    assert len(proposed(usage, demands, a_ledger(devices=3), most=2)) == 2
    found = proposed(usage, demands, a_ledger(devices=2), most=3)
    assert len(found) == 2
    assert {each.devices for each in found} == {("g0",), ("g1",)}


def test_what_requests_wait_for_is_left_to_them() -> None:
    assert proposed(clocks("m"), [a_demand("m")], a_ledger(), claimed=frozenset({DeviceId("g0")})) == []


def test_where_foreign_processes_hold_the_room_nothing_starts() -> None:
    assert proposed(clocks("m"), [a_demand("m")], a_ledger(foreign_gib=70)) == []


def test_who_follows_another_is_started_with_it() -> None:
    usage = Usage()
    for turn, pause_s in enumerate((0.0, 3000.0, 7300.0, 9100.0, 15000.0, 16900.0, 22000.0, 27500.0)):
        usage.asked("first", pause_s)
        if turn < 7:
            usage.asked("second", pause_s + 20.0)
    (preload,) = proposed(usage, [a_demand("second")], a_ledger(), at=27501.0)
    assert preload.demand.model == "second"
    assert "after first with 0." in preload.reason
