"""Where a replica goes: links, room and what the loss of others costs."""

from heliosd.core.eviction import Resident
from heliosd.core.hardware import Device, DeviceKind, DeviceReading
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.placement import Fits, MustWait, NeverFits, place
from heliosd.core.units import GiB
from tests.core.test_topology import fleet

TWO = Demand("giant", "rev", Footprint(50 * GiB, 10 * GiB, 0), device_count=2)


def ledger_of(devices: dict[DeviceId, Device]) -> Ledger:
    return Ledger(safety_ratio=0.0, devices=devices)


def resident(
    ledger: Ledger,
    name: str,
    devices: str,
    size: int,
    *,
    loss_s: float = 1.0,
    busy: bool = False,
    leaving: bool = False,
) -> Resident:
    """Booked and ready, or leaving."""
    where = tuple(DeviceId(each) for each in devices.split("+"))
    footprint = Footprint(size * GiB, 0, 0)
    ledger.book(ReplicaId(name), where, footprint)
    return Resident(ReplicaId(name), name, where, footprint, not leaving, leaving, busy, 0.0, loss_s)


def test_a_pair_with_nvlink_goes_before_a_tighter_pair_without() -> None:
    ledger = ledger_of(fleet(4, 2))
    held = [resident(ledger, "r1", "g00", 10), resident(ledger, "r2", "g02", 5)]
    found = place(TWO, ledger, held)
    assert isinstance(found, Fits)
    assert found.devices == ("g00", "g01"), "both pairs have NVLink; this one leaves the freer pair whole"
    assert "free on g00+g01, NVLink" in found.reason
    held += [resident(ledger, "r3", "g00", 15), resident(ledger, "r4", "g03", 25)]
    found = place(TWO, ledger, held)
    assert isinstance(found, Fits)
    assert found.victims == ()
    assert found.devices == ("g01", "g02"), "no pair with NVLink has room: room now goes before a link"
    assert "across NUMA nodes" in found.reason


def test_of_places_that_cost_the_same_the_better_link_is_taken() -> None:
    ledger = ledger_of(fleet(4, 2))
    held = [resident(ledger, f"r{n}", f"g0{n}", 30, loss_s=0.01 * n) for n in range(4)]
    found = place(TWO, ledger, held)
    assert isinstance(found, Fits)
    assert (found.devices, found.victims) == (("g00", "g01"), ("r0", "r1"))


def test_seconds_of_loss_go_before_a_link() -> None:
    ledger = ledger_of(fleet(4, 2))
    losses = {"g00": 0.0, "g01": 8.0, "g02": 8.0, "g03": 0.0}
    held = [resident(ledger, f"r{at}", at, 30, loss_s=loss_s) for at, loss_s in losses.items()]
    found = place(TWO, ledger, held)
    assert isinstance(found, Fits)
    assert found.devices == ("g00", "g03")


def test_a_replica_over_both_devices_makes_the_room_of_two() -> None:
    ledger = ledger_of(fleet(2, 2))
    held = [
        resident(ledger, "small", "g00", 25, loss_s=2.0),
        resident(ledger, "other", "g01", 25, loss_s=2.0),
        resident(ledger, "wide", "g00+g01", 30, loss_s=3.0),
    ]
    found = place(Demand("giant", "rev", Footprint(50 * GiB, 0, 0), device_count=2), ledger, held)
    assert isinstance(found, Fits)
    assert found.victims == ("wide",), "3 s; each device by itself would send away the small ones, 2 s and 2 s"


def test_what_is_on_its_way_back_is_waited_for_where_the_link_is_better() -> None:
    ledger = ledger_of(fleet(4, 2))
    held = [resident(ledger, f"r{n}", f"g0{n}", 30, leaving=n in (0, 2, 3)) for n in range(4)]
    found = place(TWO, ledger, held)
    assert isinstance(found, MustWait)
    assert (found.devices, found.drain) == (("g02", "g03"), ())


def test_slices_serve_alone_and_the_refusal_has_the_arithmetic() -> None:
    ledger = ledger_of(fleet(2, 2, DeviceKind.MIG))
    found = place(TWO, ledger, [])
    assert isinstance(found, NeverFits)
    assert "the whole model needs about 120.0 GiB (2 x 60.0 GiB + 0 B)" in found.reason
    assert "the largest slice offers 80.0 GiB" in found.reason
    assert "needs 2 GPUs that are not sliced" in found.reason
    found = place(Demand("small", "rev", Footprint(10 * GiB, GiB, GiB), device_count=2), ledger, [])
    assert isinstance(found, NeverFits)
    assert found.reason.endswith("set tensor_parallel to 1")


def test_a_group_that_is_barred_or_has_a_fault_is_not_taken() -> None:
    ledger = ledger_of(fleet(4, 2))
    found = place(TWO, ledger, [], barred=frozenset({(DeviceId("g00"), DeviceId("g01"))}))
    assert isinstance(found, Fits)
    assert found.devices == ("g02", "g03")
    ledger.readings[DeviceId("g02")] = DeviceReading(DeviceId("g02"), 0, 0, fault="gone")
    found = place(TWO, ledger, [])
    assert isinstance(found, Fits)
    assert found.devices == ("g00", "g01")


def fail(ledger: Ledger, device: str) -> None:
    ledger.read([DeviceReading(DeviceId(device), 0, 0, fault="GPU is lost")], {})


def test_what_only_failing_devices_could_hold_waits_for_them() -> None:
    ledger = ledger_of(fleet(2, 2))
    fail(ledger, "g01")
    found = place(TWO, ledger, ())
    assert isinstance(found, MustWait)
    assert (found.devices, found.drain, found.out) == ((), (), ("g01",)), "it claims nothing: others may go on"
    assert found.reason == "needs 60.0 GiB; what could hold it is out for now: g01 (GPU is lost)"
    one = Demand("one", "rev", Footprint(50 * GiB, 0, 0))
    assert isinstance(place(one, ledger, ()), Fits), "the other device is there"


def test_what_even_working_devices_could_not_hold_never_fits() -> None:
    ledger = ledger_of(fleet(2, 2))
    fail(ledger, "g01")
    huge = Demand("huge", "rev", Footprint(500 * GiB, 0, 0))
    crowd = Demand("crowd", "rev", Footprint(GiB, 0, 0), device_count=3)
    foreign = Demand("foreign", "rev", Footprint(GiB, 0, 0), kinds=frozenset({DeviceKind.HOST}))
    for demand in (huge, crowd, foreign):
        assert isinstance(place(demand, ledger, ()), NeverFits), demand.model


def test_a_sleeper_is_not_woken_on_a_device_that_fails() -> None:
    ledger = ledger_of(fleet(2, 2))
    fail(ledger, "g00")
    one = Demand("one", "rev", Footprint(50 * GiB, 0, 0))
    found = place(one, ledger, (), only=(DeviceId("g00"),))
    assert isinstance(found, MustWait)
    assert found.out == ("g00",)


def test_where_it_failed_it_waits_and_the_places_are_named() -> None:
    ledger = ledger_of(fleet(1, 1))
    one = Demand("one", "rev", Footprint(50 * GiB, 0, 0))
    found = place(one, ledger, (), barred=frozenset({(DeviceId("g00"),)}))
    assert isinstance(found, MustWait)
    assert (found.out, found.reason) == (
        ("g00",),
        "needs 50.0 GiB; what could hold it is out for now: g00 (it failed there)",
    )
