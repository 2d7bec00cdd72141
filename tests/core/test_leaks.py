"""What is a leak, and what only looks like one: rows of readings, with noise, over many seeds."""

import random
from collections.abc import Callable

import pytest

from heliosd.core.leaks import SLICES, LeakPolicy, Series, Verdict
from heliosd.core.trend import Z_TREND, trend
from heliosd.core.units import GiB, MiB

POLICY = LeakPolicy(window_s=3600.0, warm_up_s=300.0, most_bytes_per_hour=64 * MiB)
BASE = 10 * GiB
Held = Callable[[float, random.Random], float]


def follow(held: Held, *, seed: int = 0, hours: float = 3.0, allowance: int = 0, busy: float = 0.0) -> list[Verdict]:
    """All verdicts on what is held at each time, read four times in each slice; `busy`: share of readings at work."""
    dice, series, verdicts, at = random.Random(seed), Series(since=POLICY.warm_up_s), [], 0.0
    while at < hours * 3600:
        use = 1 + dice.randrange(3) if dice.random() < busy else 0
        extra = use * 200 * MiB
        if series.read(at, int(held(at, dice) + extra), use, POLICY, allowance):
            verdicts.append(series.verdict)
        at += POLICY.window_s / SLICES / 4
    assert len(series.floors) <= SLICES
    return verdicts


def noisy(dice: random.Random) -> float:
    return dice.gauss(0, 20 * MiB)


@pytest.mark.parametrize("seed", range(10))
def test_a_leak_is_found_within_noise_and_work(seed: int) -> None:
    verdicts = follow(lambda at, dice: BASE + at * 512 * MiB / 3600 + noisy(dice), seed=seed, busy=0.4)
    assert verdicts[-1].leak
    assert verdicts[-1].slope * 3600 == pytest.approx(512 * MiB, rel=0.15)
    assert "an hour" in verdicts[-1].why
    assert "readings at equal use" in verdicts[-1].why


def test_a_leak_with_every_collection_of_garbage_is_found() -> None:
    saw = lambda at, dice: BASE + at * 512 * MiB / 3600 + (at % 200) * MiB  # noqa: E731
    assert follow(saw)[-1].leak


HEALTHY: dict[str, Held] = {
    "steady": lambda at, dice: BASE + noisy(dice),
    "one step": lambda at, dice: BASE + (GiB if at > 5000 else 0) + noisy(dice),
    "two steps": lambda at, dice: BASE + (at > 4000) * GiB + (at > 6500) * GiB + noisy(dice),
    "sawtooth": lambda at, dice: BASE + (at % 900) * MiB + noisy(dice),
    "settles": lambda at, dice: BASE + 2 * GiB * (1 - 2.718 ** (-at / 600)) + noisy(dice),
    "warms up": lambda at, dice: BASE + min(at, 290.0) * 50 * MiB + noisy(dice),
    "shrinks": lambda at, dice: BASE - at * MiB / 4 + noisy(dice),
    "slow": lambda at, dice: BASE + at * 40 * MiB / 3600 + dice.gauss(0, MiB),
    "wild": lambda at, dice: BASE + (4 * GiB if dice.random() < 0.2 else 0) + noisy(dice),
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_no_leak_is_never_called_one(name: str, seed: int) -> None:
    assert not [each for each in follow(HEALTHY[name], seed=seed, hours=5) if each.leak]


def test_a_kv_cache_that_fills_as_booked_is_no_leak_but_what_goes_on_beyond_is() -> None:
    fills = lambda at, dice: BASE + min(2 * GiB, at * GiB / 3600) + noisy(dice)  # noqa: E731
    assert not [each for each in follow(fills, allowance=2 * GiB) if each.leak]
    fast = lambda at, dice: BASE + at * 3 * GiB / 3600 + noisy(dice)  # noqa: E731
    assert follow(fast, allowance=2 * GiB)[-1].leak


def test_nothing_is_said_before_the_window_is_nearly_full() -> None:
    early = follow(lambda at, dice: BASE + at * MiB, hours=0.8)
    assert not [each for each in early if each.leak]
    assert early[-1].why == "too few readings yet"


def test_one_that_is_never_idle_is_judged_at_equal_use() -> None:
    assert follow(lambda at, dice: BASE + at * GiB / 3600 + noisy(dice), busy=1.0)[-1].leak
    assert not [each for each in follow(HEALTHY["steady"], busy=1.0) if each.leak]


@pytest.mark.parametrize("seed", range(20))
def test_the_interval_of_a_slope_holds_the_true_one(seed: int) -> None:
    dice = random.Random(seed)
    found = trend([(float(at), 5.0 * at + dice.gauss(0, 20) + (500 if dice.random() < 0.1 else 0)) for at in range(60)])
    assert found is not None
    assert found.low <= 5.0 <= found.high
    assert found.z > Z_TREND


def test_too_few_readings_have_no_trend() -> None:
    assert trend([(float(at), float(at)) for at in range(8)]) is None
    assert trend([(1.0, float(at)) for at in range(20)]) is None
