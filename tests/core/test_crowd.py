"""How many requests at once are to be expected of a model."""

from heliosd.core.crowd import HALF_LIFE_S, LEAST, TELLING, Crowd
from heliosd.core.usage import Usage


def crowd(load: int, times: int = TELLING) -> Crowd:
    found = Crowd()
    for _ in range(times):
        found.saw(load, 0.0)
    return found


def test_twice_the_most_that_was_seen_as_a_power_of_two() -> None:
    assert [crowd(load).expected(0.0) for load in (1, 4, 5, 8, 9, 100)] == [LEAST, 8, 16, 16, 32, 256]


def test_nobody_knows_after_a_few_requests() -> None:
    assert crowd(1, TELLING - 1).expected(0.0) is None


def test_a_rush_is_forgotten_in_days_not_in_minutes() -> None:
    found = crowd(100)
    found.saw(1, 600.0)
    assert found.expected(600.0) == 256
    assert found.expected(4 * HALF_LIFE_S) == 16
    found.saw(1, 10 * HALF_LIFE_S)
    assert found.expected(10 * HALF_LIFE_S) == LEAST


def test_a_model_that_is_forgotten_has_no_crowd() -> None:
    usage = Usage()
    usage.granted("m", 3, 0.0)
    assert usage.crowds["m"].most == 3
    usage.forget("m")
    assert not usage.crowds
