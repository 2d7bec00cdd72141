"""What an engine says of its load reaches whoever listens: soon, not too often, and the last of it always."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from heliosd.engines.engine import Pressure
from heliosd.engines.pressure import INTERVAL_S, Gauge


@dataclass
class Alarm:
    """Time that passes when the test says so."""

    calls: list[Callable[[], None]] = field(default_factory=list)
    cancelled: bool = False

    def later(self, span_s: float, call: Callable[[], None]) -> "Alarm":
        assert span_s == INTERVAL_S
        self.calls.append(call)
        return self

    def cancel(self) -> None:
        self.cancelled = True
        self.calls.clear()

    def ring(self) -> None:
        self.calls.pop(0)()


@pytest.fixture
def alarm() -> Alarm:
    return Alarm()


@pytest.fixture
def told() -> list[Pressure]:
    return []


@pytest.fixture
def gauge(alarm: Alarm, told: list[Pressure]) -> Gauge:
    gauge = Gauge(alarm.later)
    gauge.listen(told.append)
    return gauge


def running(count: int, ratio: float = 0.0) -> Pressure:
    return Pressure(count, 0, ratio, 0)


def test_the_first_change_is_told_at_once(gauge: Gauge, told: list[Pressure]) -> None:
    gauge.note(running(1))
    assert told == [running(1)]


def test_what_comes_soon_after_is_told_together_when_the_time_is_over(
    gauge: Gauge, told: list[Pressure], alarm: Alarm
) -> None:
    for count in (1, 2, 3, 0):
        gauge.note(running(count))
    assert told == [running(1)]
    assert gauge.now == running(0)
    alarm.ring()
    assert told == [running(1), running(0)]


def test_nothing_new_is_not_told_and_the_next_change_is_told_at_once(
    gauge: Gauge, told: list[Pressure], alarm: Alarm
) -> None:
    gauge.note(running(1))
    alarm.ring()
    assert told == [running(1)]
    gauge.note(running(2))
    assert told == [running(1), running(2)]


@pytest.mark.parametrize(
    ("change", "is_told"),
    [
        (Pressure(1, 0, 0.0, 0), True),
        (Pressure(0, 1, 0.0, 0), True),
        (Pressure(0, 0, 0.0, 1), True),
        (Pressure(0, 0, 0.05, 0), True),
        (Pressure(0, 0, 0.04, 0), False),
    ],
)
def test_what_is_worth_telling(gauge: Gauge, told: list[Pressure], change: Pressure, is_told: bool) -> None:
    gauge.note(change)
    assert bool(told) is is_told


def test_small_steps_of_the_cache_add_up(gauge: Gauge, told: list[Pressure]) -> None:
    for percent in range(1, 6):
        gauge.note(running(0, percent / 100))
    assert told == [running(0, 0.05)]


def test_an_engine_that_has_ended_says_nothing(gauge: Gauge, told: list[Pressure], alarm: Alarm) -> None:
    gauge.note(running(1))
    gauge.note(running(2))
    gauge.close()
    gauge.note(running(3))
    assert told == [running(1)]
    assert alarm.cancelled


def test_nobody_needs_to_listen(alarm: Alarm) -> None:
    gauge = Gauge(alarm.later)
    gauge.note(running(1))
    assert gauge.now == running(1)
    assert alarm.calls == []
