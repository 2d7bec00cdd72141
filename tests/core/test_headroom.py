"""A device that fills up is closed before it is full, and opened again."""

import random
from collections.abc import Callable

from heliosd.core.hardware import Device, DeviceKind, DeviceReading, HostReading, Space
from heliosd.core.headroom import HeadroomWatch
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.placement import Fits, MustWait, place
from heliosd.core.units import GiB, MiB

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


def watched(used_gib: Callable[[float], float], seconds: int) -> tuple[Ledger, HeadroomWatch, list[str]]:
    """Readings every five seconds."""
    ledger, watch, told = Ledger(), HeadroomWatch(), []
    ledger.devices = {G0: Device(G0, DeviceKind.SIMULATED, "card", 80 * GiB)}
    for at in range(0, seconds, 5):
        ledger.read([DeviceReading(G0, int(used_gib(at) * GiB), 0)], {})
        told += [note.reason for note in watch.look(ledger, float(at))]
    return ledger, watch, told


def test_a_slow_but_lasting_growth_closes_it_in_time_and_once() -> None:
    ledger, watch, told = watched(lambda at: 10 + at * 0.1, 620)
    assert ledger.running_out == {G0}
    assert len(told) == 1
    assert "what is not booked takes more and more" in told[0]
    seen = watch.exhaustion(G0, device=True)
    assert seen.basis == "trend"
    assert seen.after_s < 120


def test_teeth_and_noise_close_nothing_again_and_again() -> None:
    for tooth_s in (60, 200, 500, 700):
        _, _, told = watched(lambda at, tooth_s=tooth_s: 40 + 30 * (at % tooth_s) / tooth_s, 7200)  # type: ignore[misc]
        assert len(told) <= 8
    dice = random.Random(1)
    _, _, told = watched(lambda at: 40 + dice.gauss(0, 2), 7200)
    assert not told


def test_a_start_is_no_growth_and_an_engine_that_takes_more_than_booked_is() -> None:
    ledger, watch = Ledger(safety_ratio=0.0), HeadroomWatch()
    ledger.devices = {G0: Device(G0, DeviceKind.SIMULATED, "card", 80 * GiB)}
    for at in range(0, 600, 5):
        if at % 100 == 0:
            ledger.book(ReplicaId(f"r{at}"), (G0,), Footprint(GiB, 0, 0))
            ledger.measure(ReplicaId(f"r{at}"), Footprint(GiB, 0, 0))
        watch.look(ledger, float(at))
    assert not watch.exhaustion(G0, device=True).in_sight
    for at in range(600, 1800, 5):
        ledger.measured[ReplicaId("r0")] = now = Footprint(GiB, 0, (at - 600) * 10 * MiB)
        ledger.promised[ReplicaId("r0")] = ((G0,), now)
        ledger._sums = None
        watch.look(ledger, float(at))
    assert watch.exhaustion(G0, device=True).basis == "trend"


def test_a_disk_that_fills_is_told_once_and_again_when_it_does_not() -> None:
    ledger, watch, told = Ledger(), HeadroomWatch(), []
    for at in range(0, 5400, 5):
        used = 100 * GiB + min(at, 1800) * 10 * MiB
        told += [note.reason for note in watch.look(ledger, float(at), [Space("store", used, 140 * GiB - used)])]
    assert len(told) == 2
    assert told[0].startswith("the disk of the store will be full in ")
    assert told[1] == "the disk of the store no longer runs out"


def test_host_memory_that_others_use_up_takes_no_sleeper() -> None:
    ledger, watch = Ledger(host_bytes=32 * GiB), HeadroomWatch()
    open_at_first = None
    for at in range(0, 500, 5):
        ledger.host = HostReading(64 * GiB, 40 * GiB - at * 70 * MiB)
        watch.look(ledger, float(at))
        open_at_first = ledger.host_free_bytes > 0 if open_at_first is None else open_at_first
    assert open_at_first
    assert ledger.host_running_out
    assert ledger.host_left_bytes > 0
    assert ledger.host_free_bytes == 0
