"""What the phases of a start are expected to take."""

import pytest

from heliosd.core.start_forecast import KEPT_EACH, KEPT_MODELS, Expected, SeenStart, StartForecast


def seen(weights_s: float, n_bytes: int = 100, on: str = "cuda", **more: float) -> SeenStart:
    return SeenStart((("fork", 0.1), ("weights", weights_s), *more.items(), ("warm_up", 1.0)), n_bytes, on)


def test_the_median_of_its_own_last_starts_counts_so_that_one_slow_start_is_nothing() -> None:
    forecast = StartForecast()
    for weights_s in (2.0, 2.2, 60.0, 1.9, 2.1):
        forecast.saw("m", seen(weights_s))
    own = forecast.expected("m", 1)
    assert own is not None
    assert dict(own.phases) == {"fork": 0.1, "weights": 2.1, "warm_up": 1.0}
    for _ in range(KEPT_EACH):
        forecast.saw("m", seen(9.0))
    assert (changed := forecast.own("m")) is not None and dict(changed.phases)["weights"] == 9.0


def test_a_phase_that_few_starts_had_is_not_expected_and_waiting_is_none() -> None:
    forecast = StartForecast()
    forecast.saw("m", seen(2.0, fetch=300.0, turn=40.0))
    for _ in range(2):
        forecast.saw("m", seen(2.0))
    assert (own := forecast.own("m")) is not None
    assert [phase for phase, _ in own.phases] == ["fork", "weights", "warm_up"]


def test_a_model_that_never_started_is_told_of_by_others_for_its_bytes() -> None:
    forecast = StartForecast()
    forecast.saw("small", seen(1.0, 100))
    forecast.saw("large", seen(10.0, 1000))
    forecast.saw("on the host", seen(500.0, 100, on="host"))
    new = forecast.expected("new", 400, {"cuda", "mig"})
    assert new is not None
    assert dict(new.phases) == {"fork": 0.1, "weights": 4.0, "warm_up": 1.0}
    assert forecast.expected("new", 400, {"simulated"}) is None
    assert StartForecast().expected("new", 400) is None


@pytest.mark.parametrize(
    ("done", "since_s", "left_s"),
    [
        ((), 0.0, 9.0),
        (("fork",), 3.0, 5.0),
        (("fork",), 60.0, 2.0),
        (("weights",), 0.5, 1.5),
        (("fork", "warm_up"), 1.0, 0.0),
        (("unheard of",), 0.0, 9.0),
    ],
)
def test_what_is_left_is_the_rest_of_this_phase_and_all_behind_it(
    done: tuple[str, ...], since_s: float, left_s: float
) -> None:
    assert Expected((("fork", 1.0), ("weights", 6.0), ("warm_up", 2.0))).left_s(done, since_s) == left_s


def test_another_life_tells_only_of_models_that_did_not_start_in_this_one() -> None:
    forecast = StartForecast()
    forecast.saw("here", seen(1.0))
    forecast.seeded([("here", seen(50.0)), ("there", seen(2.0)), ("there", seen(4.0))])
    assert (here := forecast.own("here")) is not None and dict(here.phases)["weights"] == 1.0
    assert (there := forecast.own("there")) is not None and dict(there.phases)["weights"] == 3.0


def test_the_model_that_started_longest_ago_is_forgotten_first() -> None:
    forecast = StartForecast()
    for number in range(KEPT_MODELS):
        forecast.saw(f"m{number}", seen(1.0))
    forecast.saw("m0", seen(1.0))
    forecast.saw("one more", seen(1.0))
    assert forecast.own("m0") is not None
    assert forecast.own("m1") is None
