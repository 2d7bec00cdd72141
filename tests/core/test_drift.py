"""A device that holds other than what was measured is told of, once, and again when it is over."""

from heliosd.core.drift import DriftWatch
from heliosd.core.hardware import Device, DeviceKind, DeviceReading, ProcessUse
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.units import GiB

G0, R1 = DeviceId("g0"), ReplicaId("r1")


def test_twice_in_a_row_is_an_alarm_and_half_of_it_the_end() -> None:
    ledger, watch = Ledger(), DriftWatch()
    ledger.devices = {G0: Device(G0, DeviceKind.SIMULATED, "card", 100 * GiB)}
    ledger.book(R1, (G0,), Footprint(40 * GiB, 0, 0))
    ledger.measure(R1, Footprint(40 * GiB, 0, 0))
    told = []
    for gib in (40, 42, 45, 49, 49, 49):
        reading = DeviceReading(G0, gib * GiB, 0, (ProcessUse(1, gib * GiB),))
        ledger.read([reading], {1: R1})
        told.append([note.reason for note in watch.look(ledger)])
    assert told[:2] == [[], []]
    assert told[2] == ["g0 holds 3.0% of its memory more than was measured"]
    assert told[3] == []
    assert told[4] == ["g0 holds what was measured again"]
    assert ledger.promised[R1][1].total_bytes == 49 * GiB, "what is really held is what is booked"


def test_what_no_driver_could_mean_books_nothing() -> None:
    ledger = Ledger()
    ledger.devices = {G0: Device(G0, DeviceKind.SIMULATED, "card", 100 * GiB)}
    ledger.book(R1, (G0,), Footprint(5 * GiB, 0, 5 * GiB))
    ledger.measure(R1, Footprint(5 * GiB, 0, 5 * GiB))
    ledger.read([DeviceReading(G0, 90 * GiB, 0, (ProcessUse(1, 90 * GiB),))], {1: R1})
    assert ledger.promised[R1][1].total_bytes == 10 * GiB
    assert ledger.drift_ratio(G0) == 0.8
    ledger.read([DeviceReading(G0, 9 * GiB, 0, (ProcessUse(1, 9 * GiB),))], {1: R1})
    assert ledger.promised[R1][1].total_bytes == 10 * GiB
    assert ledger.measured[R1].total_bytes == 9 * GiB
