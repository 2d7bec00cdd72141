"""When a device will be full, told from made histories: growth, weeks, noise, and too little of it."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.core.capacity import project, scaled
from heliosd.core.daily_trend import trend
from heliosd.core.hours import PlaceHour
from heliosd.core.units import GiB

NOW = 24 * 20_000
ROOM = 80 * GiB


def history(days: int, need: Callable[[int], float], room_bytes: int = ROOM) -> list[PlaceHour]:
    """`need`: bytes by the hours since its begin."""
    first = NOW - days * 24 + 1
    return [PlaceHour(first + at, "g0", int(need(at)), room_bytes) for at in range(days * 24)]


def working_week(at: int) -> float:
    """40 GiB in the working hours of five days, 10 GiB else."""
    hour = NOW + 1 + at
    return 40.0 * GiB if (hour // 24) % 7 < 5 and 8 <= hour % 24 < 18 else 10.0 * GiB


def test_growth_is_full_when_the_line_says_so():
    found = project(history(30, lambda at: 20 * GiB + at / 24 * GiB), NOW, 60 * 24)
    assert found.state == "in_sight" and found.trend is not None
    assert found.trend.slope == pytest.approx(GiB, rel=0.01)
    assert found.full_in_hours == pytest.approx(30 * 24, abs=26)
    assert found.earliest_hours is not None and found.latest_hours is not None
    assert found.earliest_hours <= found.full_in_hours <= found.latest_hours


def test_a_week_without_growth_is_no_trend_and_never_full():
    found = project(history(35, working_week), NOW, 90 * 24)
    assert found.state == "not_in_sight" and found.trend is not None and not found.trend.certain
    assert found.expected_bytes == 40 * GiB
    assert found.by_hour[9].expected_bytes == 40 * GiB and found.by_hour[3].expected_bytes == 10 * GiB
    assert found.by_hour[9].seen_bytes == 40 * GiB


def test_a_growing_week_is_full_at_a_busy_hour():
    found = project(history(35, lambda at: working_week(at) * (1 + at / 24 / 50)), NOW, 90 * 24)
    assert found.state == "in_sight" and found.full_in_hours is not None
    hour = NOW + found.full_in_hours
    assert 8 <= hour % 24 < 18 and (hour // 24) % 7 < 5


def test_one_absurd_day_changes_nothing():
    plain = history(30, lambda at: 20 * GiB)
    wild = [PlaceHour(each.hour, "g0", 79 * GiB, ROOM) if NOW - each.hour < 30 else each for each in plain]
    assert project(wild, NOW, 30 * 24).state == "not_in_sight"


def test_full_already():
    found = project(history(10, lambda at: 80.0 * GiB), NOW, 24)
    assert (found.state, found.full_in_hours) == ("full", 1)


def test_too_little_is_said():
    assert project([], NOW, 24).note == "not enough history: 0 hours of 48"
    found = project(history(1, lambda at: 79.0 * GiB), NOW, 24)
    assert (found.state, found.full_in_hours) == ("unknown", None)
    assert found.note == "not enough history: 24 hours of 48"
    assert project(history(5, lambda at: 20 * GiB + at * GiB / 24), NOW, 24).note.startswith("no trend yet: 5 days")


def test_gaps_are_no_zeros():
    """Hours in which the daemon did not run say nothing."""
    rows = [each for each in history(28, lambda at: 50.0 * GiB) if (each.hour // 24) % 3]
    found = project(rows, NOW, 30 * 24)
    assert found.expected_bytes == 50 * GiB and found.state == "not_in_sight"


def test_another_card_puts_it_off_and_fewer_bytes_too():
    rows = history(30, lambda at: 20 * GiB + at / 24 * GiB)
    alone = project(rows, NOW, 300 * 24).full_in_hours
    card = project(scaled(rows, more_bytes=80 * GiB), NOW, 300 * 24).full_in_hours
    half = project(scaled(rows, factor=0.5), NOW, 300 * 24).full_in_hours
    assert alone is not None and card is not None and half is not None
    assert alone < card and alone < half


def test_the_interval_holds_the_truth_most_times():
    """Nine in ten by its own word; noise from day to day, so that days are independent as the interval takes them."""
    held = 0
    for seed in range(100):
        noise = random.Random(seed)
        daily = [noise.gauss(0, 3 * GiB) for _ in range(42)]
        found = trend({day: 20 * GiB + 0.3 * GiB * day + daily[day] for day in range(42)})
        assert found is not None
        held += found.low <= 0.3 * GiB <= found.high
    assert held >= 80


@given(st.lists(st.integers(0, 100), min_size=60, max_size=900), st.integers(1, 400))
def test_it_always_answers_in_order(needs: list[int], horizon: int):
    found = project(history(38, lambda at: needs[at % len(needs)] * GiB), NOW, horizon)
    for hours in (found.full_in_hours, found.earliest_hours, found.latest_hours):
        assert hours is None or 1 <= hours <= horizon
    if found.full_in_hours is not None:
        assert found.earliest_hours is not None and found.earliest_hours <= found.full_in_hours
        assert found.latest_hours is None or found.full_in_hours <= found.latest_hours
