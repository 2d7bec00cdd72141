"""When something will be full: readings with noise, steps and teeth, and forecasts."""

import random
from collections.abc import Callable

import pytest

from heliosd.core.exhaustion import AHEAD_S, NOT_IN_SIGHT, READINGS, WINDOW_S, Exhaustion, Filling, by_forecast
from heliosd.core.units import GiB, MiB

Used = Callable[[float, random.Random], float]
WHOLE = 80 * GiB


def seen(used: Used, *, seed: int = 0, seconds: float = 3600.0) -> list[Exhaustion]:
    dice, filling, found = random.Random(seed), Filling(), []
    for at in range(0, int(seconds), 5):
        now = int(used(float(at), dice))
        filling.read(float(at), now)
        found.append(filling.exhaustion(WHOLE - now))
        assert len(filling.used) <= READINGS
    return found


def noisy(dice: random.Random) -> float:
    return dice.gauss(0, 100 * MiB)


@pytest.mark.parametrize("seed", range(10))
def test_a_steady_growth_is_told_with_an_interval_that_holds(seed: int) -> None:
    found = seen(lambda at, dice: 40 * GiB + at * 5 * MiB + noisy(dice), seed=seed)[-1]
    left_s = (40 * GiB - 3600 * 5 * MiB) / (5 * MiB)
    assert found.basis == "trend"
    assert found.low_s <= found.after_s <= found.high_s
    assert found.after_s == pytest.approx(left_s, rel=0.1)
    assert found.low_s * 0.9 <= left_s <= found.high_s * 1.1


CALM: dict[str, Used] = {
    "steady": lambda at, dice: 40 * GiB + noisy(dice),
    "steps": lambda at, dice: 20 * GiB + 10 * GiB * (at > 900) + 10 * GiB * (at > 2400) + noisy(dice),
    "sawtooth": lambda at, dice: 40 * GiB + (at % 180) * 20 * MiB + noisy(dice),
    "falls": lambda at, dice: 40 * GiB - at * MiB + noisy(dice),
    "crawls": lambda at, dice: 10 * GiB + at * 1024 * 16,
}


@pytest.mark.parametrize("name", CALM)
@pytest.mark.parametrize("seed", range(5))
def test_what_does_not_fill_is_not_in_sight(name: str, seed: int) -> None:
    found = seen(CALM[name], seed=seed)
    late = found[int(WINDOW_S / 5) :]
    assert sum(each.in_sight for each in late) <= len(late) * 0.02


def test_what_is_full_is_full_now() -> None:
    assert Filling().exhaustion(0) == Exhaustion(0.0, 0.0, 0.0, "full")


def test_a_forecast_says_when_what_is_expected_no_longer_fits() -> None:
    certain = by_forecast(10 * GiB, lambda within_s: [(min(1.0, within_s / 3600), 20 * GiB)])
    assert certain.basis == "forecast"
    assert certain.after_s == pytest.approx(1800, rel=0.01)
    assert certain.low_s <= certain.after_s <= certain.high_s
    assert by_forecast(30 * GiB, lambda within_s: [(1.0, 20 * GiB)]) == NOT_IN_SIGHT
    assert by_forecast(GiB, lambda within_s: []) == NOT_IN_SIGHT


@pytest.mark.parametrize("seed", range(20))
def test_more_room_is_never_full_sooner(seed: int) -> None:
    dice = random.Random(seed)
    models = [(dice.random() / dice.randrange(60, 86400), dice.randrange(1, 40) * GiB) for _ in range(30)]
    wants = lambda within_s: [(min(1.0, rate * within_s), n_bytes) for rate, n_bytes in models]  # noqa: E731
    found = [by_forecast(room * GiB, wants) for room in range(0, 400, 20)]
    assert [each.after_s for each in found] == sorted(each.after_s for each in found)
    assert all(each.low_s <= each.after_s <= each.high_s for each in found)
    assert all(each.after_s <= AHEAD_S[-1] for each in found if each.in_sight)
