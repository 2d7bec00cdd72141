"""Every byte is counted once: promised, measured, foreign, free."""

import pytest

from heliosd.core.hardware import Device, DeviceKind, DeviceReading, ProcessUse
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.units import GiB

G0 = DeviceId("g0")
R1, R2 = ReplicaId("r1"), ReplicaId("r2")


@pytest.fixture
def ledger() -> Ledger:
    device = Device(G0, DeviceKind.CUDA, "card", 100 * GiB)
    return Ledger(safety_ratio=0.02, devices={G0: device})


def gib(weights: int, kv: int = 0, overhead: int = 0) -> Footprint:
    return Footprint(weights * GiB, kv * GiB, overhead * GiB)


def test_promises_add_up_and_are_taken_back_once(ledger: Ledger) -> None:
    ledger.book(R1, (G0,), gib(30, 10, 5))
    assert ledger.free_bytes(G0) == 53 * GiB
    ledger.release(R1)
    ledger.release(R1)
    assert ledger.free_bytes(G0) == 98 * GiB


def test_nothing_is_promised_that_is_not_there(ledger: Ledger) -> None:
    ledger.book(R1, (G0,), gib(60))
    with pytest.raises(ValueError, match="cannot promise"):
        ledger.book(R2, (G0,), gib(39))


def test_foreign_is_what_is_used_besides_ours(ledger: Ledger) -> None:
    ledger.book(R1, (G0,), gib(30))
    uses = (ProcessUse(7, 20 * GiB), ProcessUse(9, 15 * GiB))
    ledger.read([DeviceReading(G0, 35 * GiB, 65 * GiB, uses)], {7: R1})
    assert ledger.foreign[G0] == 15 * GiB
    assert ledger.account(G0).free_bytes == (100 - 2 - 15 - 30) * GiB


def test_where_the_driver_does_not_say_ours_count_as_measured(ledger: Ledger) -> None:
    """In a container NVML names processes without their bytes, or none at all."""
    ledger.book(R1, (G0,), gib(30))
    ledger.measure(R1, gib(25))
    for uses in ((ProcessUse(7, None),), ()):
        ledger.read([DeviceReading(G0, 33 * GiB, 67 * GiB, uses)], {7: R1})
        assert ledger.foreign[G0] == 8 * GiB


def test_a_promise_that_was_too_small_becomes_what_is_true(ledger: Ledger) -> None:
    ledger.book(R1, (G0,), gib(30))
    ledger.measure(R1, gib(31))
    assert ledger.promised_bytes(G0) == 31 * GiB
    ledger.measure(R1, gib(20))
    assert ledger.promised_bytes(G0) == 31 * GiB
    assert ledger.account(G0).measured_bytes == 20 * GiB


def test_what_was_foreign_stays_so_while_a_replica_starts(ledger: Ledger) -> None:
    """It holds nothing yet of what it was promised: counting its promise as ours would hide what others hold."""
    ledger.read([DeviceReading(G0, 20 * GiB, 80 * GiB, (ProcessUse(9, 20 * GiB),))], {})
    ledger.book(R1, (G0,), gib(30))
    ledger.read([DeviceReading(G0, 20 * GiB, 80 * GiB, (ProcessUse(9, 20 * GiB),))], {})
    assert ledger.foreign[G0] == 20 * GiB
    ledger.measure(R1, gib(30))
    ledger.read([DeviceReading(G0, 50 * GiB, 50 * GiB, (ProcessUse(9, 20 * GiB), ProcessUse(7, 30 * GiB)))], {7: R1})
    assert ledger.foreign[G0] == 20 * GiB


def test_a_device_that_fails_says_nothing_about_others(ledger: Ledger) -> None:
    ledger.read([DeviceReading(G0, 20 * GiB, 80 * GiB)], {})
    ledger.read([DeviceReading(G0, 0, 0, fault="GPU is lost")], {})
    assert ledger.foreign[G0] == 20 * GiB
    assert not ledger.healthy(G0)


def test_what_a_driver_says_ours_hold_is_what_they_were_measured_to_hold(ledger: Ledger) -> None:
    """It changes while they serve, and where they share pages also as others start and end."""
    ledger.book(R1, (G0,), gib(30, 10, 5))
    ledger.book(R2, (G0,), gib(20))
    ledger.measure(R1, gib(30, 10, 4))
    uses = (ProcessUse(7, 20 * GiB), ProcessUse(8, 22 * GiB), ProcessUse(9, 11 * GiB))
    ledger.read([DeviceReading(G0, 53 * GiB, 47 * GiB, uses)], {7: R1, 8: R1, 9: R2})
    assert ledger.drift[G0] == -2 * GiB
    assert ledger.measured == {R1: gib(30, 10, 2)}, "one that still starts was not measured yet"
    assert ledger.promised_bytes(G0) == 65 * GiB
    ledger.read([DeviceReading(G0, 60 * GiB, 40 * GiB, (ProcessUse(7, 49 * GiB),))], {7: R1})
    assert ledger.promised[R1][1] == gib(30, 10, 9), "what is really held is promised"
    ledger.read([DeviceReading(G0, 60 * GiB, 40 * GiB, (ProcessUse(7, None),))], {7: R1})
    assert ledger.measured[R1] == gib(30, 10, 9)
