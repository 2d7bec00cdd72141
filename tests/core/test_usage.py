"""How often a model is asked for, and what its loss would cost."""

import math

import pytest

from heliosd.core.forecast import Habit
from heliosd.core.heat import Heat
from heliosd.core.units import GiB
from heliosd.core.usage import HORIZON_S, MOST_MODELS, Usage


def steady(rate: float, until: float, model: str = "m") -> Usage:
    usage = Usage()
    for turn in range(int(until * rate)):
        usage.asked(model, turn / rate)
    return usage


@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0])
def test_a_steady_stream_gives_its_rate_back(rate: float) -> None:
    heat = steady(rate, 1_000_000 if rate < 1 else 500_000).forecast.habits["m"].heat
    assert heat.rate(heat.at) == pytest.approx(rate, rel=0.12)


def test_who_is_not_asked_for_fades_and_time_never_goes_back() -> None:
    heat = Heat()
    heat.asked(100.0)
    rates = [heat.rate(at) for at in (100.0, 200.0, 4000.0, 200_000.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0
    assert heat.rate(50.0) == rates[0]


def test_the_loss_is_the_probability_of_reuse_times_the_reload() -> None:
    usage = steady(0.02, 500_000)
    at = usage.forecast.habits["m"].heat.at
    usage.started("m", 12.0)
    expected = -math.expm1(-usage.forecast.habits["m"].heat.rate(at) * HORIZON_S)
    assert usage.reuse("m", at) == pytest.approx(expected)
    assert usage.loss_s("m", 20 * GiB, at) == pytest.approx(expected * 12.0)
    assert usage.loss_s("never asked", GiB, at) == 0.0
    assert usage.reload("new", 20 * GiB) == 13.0, "three seconds and one for each 2 GiB"


def test_the_coldest_is_forgotten_when_there_are_too_many() -> None:
    usage = Usage()
    for number in range(MOST_MODELS):
        usage.forecast.habits[f"m{number}"] = Habit(Heat(float(number), [1.0, 1.0, 1.0]))
    usage.asked("one more", float(MOST_MODELS))
    assert len(usage.forecast.habits) == MOST_MODELS
    assert "m0" not in usage.forecast.habits
