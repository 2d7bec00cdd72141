"""A device that fills up is closed before it is full, and opened again."""

from heliosd.core.hardware import Device, DeviceKind, DeviceReading
from heliosd.core.headroom import HeadroomWatch
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import DeviceId
from heliosd.core.placement import Fits, MustWait, place
from heliosd.core.units import GiB

G0 = DeviceId("g0")
SMALL = Demand("m", "rev", Footprint(GiB, 0, 0))


def fill(*foreign_gib: float, every_s: float = 5.0) -> tuple[Ledger, list[str]]:
    ledger, watch, told = Ledger(), HeadroomWatch(), []
    ledger.devices = {G0: Device(G0, DeviceKind.SIMULATED, "card", 80 * GiB)}
    for number, gib in enumerate(foreign_gib):
        ledger.read([DeviceReading(G0, int(gib * GiB), 0)], {})
        told += [note.reason for note in watch.look(ledger, number * every_s)]
    return ledger, told


def test_a_steady_growth_closes_it_and_says_when_it_is_full() -> None:
    ledger, told = fill(10, 30, 50, 60)
    assert ledger.running_out == {G0}
    assert told == [
        "g0 will be full in 8 s: foreign processes take 4.0 GiB a second of the 30.0 GiB that are left; "
        "nothing is started there"
    ]
    waits = place(SMALL, ledger, ())
    assert isinstance(waits, MustWait)
    assert "g0 will soon be full of foreign memory" in waits.reason


def test_one_process_that_takes_its_memory_at_once_is_no_trend() -> None:
    ledger, told = fill(10, 60, 60, 60)
    assert not ledger.running_out
    assert not told
    assert isinstance(place(SMALL, ledger, ()), Fits)


def test_it_opens_again_when_the_growth_ends() -> None:
    ledger, told = fill(10, 30, 50, 50)
    assert not ledger.running_out
    assert told[-1] == "g0 no longer runs out of memory"
