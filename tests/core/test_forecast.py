"""How likely a model is asked for soon."""

import math

import pytest

from heliosd.core.candidates import MOST_RECENT
from heliosd.core.forecast import Forecast
from heliosd.core.gaps import SHORTEST_S, TRUST, Gaps
from heliosd.core.sequences import MOST_SUCCESSORS, Sequences
from heliosd.core.usage import Usage
from heliosd.core.week import HOURS, Week, hour_of

HOUR_S = 3600.0
WEEK_S = HOURS * HOUR_S


def every(period_s: float, times: int, model: str = "m", epoch_offset_s: float | None = None) -> Forecast:
    forecast = Forecast(epoch_offset_s=epoch_offset_s)
    for turn in range(times):
        forecast.asked(model, turn * period_s)
    return forecast


# ---- pauses ------------------------------------------------------------------


def test_a_pause_that_is_about_to_end_is_seen_and_one_that_is_not_neither() -> None:
    forecast = every(600.0, 21)
    last = 20 * 600.0
    chances = [forecast.chance("m", last + age_s, 60.0) for age_s in (20.0, 300.0, 480.0, 560.0)]
    assert chances[0] < 0.05 and chances[1] < 0.05 and chances[2] < 0.1
    assert chances[3] > 0.8
    left_s = forecast.next_s("m", last + 300.0)
    assert left_s == pytest.approx(300.0, rel=0.1)


def test_who_never_paused_and_who_paused_longer_than_ever_is_left_to_the_rates() -> None:
    assert Gaps().chance(100.0, 60.0, 0.25) == pytest.approx(0.25)
    gaps = Gaps()
    for _ in range(50):
        gaps.passed(100.0)
    assert gaps.chance(5000.0, 60.0, 0.25) == pytest.approx(0.25)
    assert gaps.chance(20.0, 30.0, 0.0) == 0.0
    assert gaps.chance(20.0, 1e9, 0.0) == pytest.approx(1.0, abs=TRUST / 20)


def test_a_burst_leaves_what_is_known_of_longer_pauses() -> None:
    gaps = Gaps()
    for _ in range(20):
        gaps.passed(1000.0)
        for _ in range(500):
            gaps.passed(1.0)
    assert gaps.burst > 0.9
    assert gaps.chance(2.0, 60.0, 0.0) == pytest.approx(gaps.burst, abs=0.01)
    assert gaps.chance(SHORTEST_S, 60.0, 0.0) < 0.01
    assert gaps.chance(960.0, 60.0, 0.0) > 0.5


def test_an_old_habit_gives_way_to_a_new_one_and_numbers_stay_finite() -> None:
    gaps = Gaps()
    for _ in range(3000):
        gaps.passed(100.0)
    for _ in range(150):
        gaps.passed(10_000.0)
    assert gaps.chance(90.0, 60.0, 0.0) < 0.05
    assert math.isfinite(gaps.unit) and gaps.unit < 1e31
    assert all(0.0 <= gaps.chance(age_s, 60.0, 0.5) <= 1.0 for age_s in range(0, 20_000, 13))


def test_peaks_of_short_and_long_pauses_are_told_apart() -> None:
    gaps = Gaps()
    for _ in range(40):
        gaps.passed(50.0)
        gaps.passed(1200.0)
    (short, long) = gaps.peaks
    assert short[0] <= 50.0 < short[1] < long[0] <= 1200.0 < long[1]
    assert gaps.next_peak(10.0) == short
    assert gaps.next_peak(200.0) == long
    assert gaps.next_peak(2000.0) is None


# ---- the week ----------------------------------------------------------------


def test_an_hour_of_the_week_comes_back() -> None:
    week = Week(began=0)
    for number in range(4):
        for minute in range(30):
            for _ in range(5):
                week.asked(number * WEEK_S + 9 * HOUR_S + minute * 60.0)
    chance, weeks = week.chance(4 * WEEK_S + 9 * HOUR_S)
    assert chance == pytest.approx(0.5), "half of its minutes, however often in each"
    assert weeks > 1
    assert week.chance(4 * WEEK_S + 10 * HOUR_S)[0] == 0.0
    assert week.chance(9 * WEEK_S + 9 * HOUR_S)[0] < 0.1, "it fades"
    assert Week(began=5).chance(6 * HOUR_S) == (0.0, 0.0), "less than a week tells nothing"
    assert hour_of(0.0) == 0


def test_the_habit_of_a_week_is_expected_though_nobody_asked_for_days() -> None:
    forecasts = [Forecast(epoch_offset_s=offset) for offset in (5 * WEEK_S, None)]
    for number in range(4):
        for second in range(0, 3600, 40):
            for forecast in forecasts:
                forecast.asked("m", number * WEEK_S + second)
    with_week, without = (forecast.chance("m", 4 * WEEK_S + 1.0, 60.0) for forecast in forecasts)
    assert with_week > 0.3
    assert without < 0.05
    assert "m" in forecasts[0].worth_asking(4 * WEEK_S)


# ---- sequences ---------------------------------------------------------------


def follow(times: int, gap_s: float = 20.0) -> Sequences:
    sequences = Sequences()
    for turn in range(times):
        sequences.woke("a", turn * 1000.0)
        sequences.woke("b", turn * 1000.0 + gap_s)
    return sequences


def test_who_follows_is_expected_and_less_so_as_the_time_passes() -> None:
    sequences = follow(20)
    sequences.woke("a", 50_000.0)
    soon, later = (sequences.expected(50_000.0 + passed_s)["b"] for passed_s in (1.0, 40.0))
    assert soon[1] == "a"
    assert soon[0] > 0.7 and 0.3 < later[0] < soon[0]
    assert "b" not in sequences.expected(50_061.0)
    assert "a" not in sequences.expected(50_001.0)


def test_once_may_be_chance() -> None:
    sequences = follow(1)
    sequences.woke("a", 5000.0)
    assert sequences.expected(5001.0) == {}
    assert follow(20, gap_s=90.0).expected(20_000.0) == {}


def test_what_is_remembered_of_successors_is_bounded() -> None:
    sequences = follow(10)
    for turn in range(100):
        sequences.woke("a", 1e6 + turn * 1000.0)
        sequences.woke(f"x{turn}", 1e6 + turn * 1000.0 + 1.0)
    assert len(sequences.known["a"].follows) <= MOST_SUCCESSORS


def test_what_is_always_asked_for_tells_nothing() -> None:
    forecast = Forecast()
    for second in range(0, 5000, 10):
        forecast.asked("busy", float(second))
        if second % 500 == 0:
            forecast.asked("rare", second + 1.0)
    assert forecast.expected(5000.0) == {}


# ---- candidates --------------------------------------------------------------


def test_of_many_models_few_are_asked_about_and_the_due_one_is_among_them() -> None:
    forecast = every(3600.0, 10, "clock")
    last = 9 * 3600.0
    for number in range(5000):
        forecast.asked(f"m{number}", last + 1.0 + number * 0.01)
    assert "clock" not in forecast.worth_asking(last + 600.0)
    due_at = forecast.candidates.next_at
    assert last + 3000.0 < due_at < last + 3600.0
    found = forecast.worth_asking(due_at)
    assert "clock" in found
    assert len(found) <= MOST_RECENT + 1
    forecast.asked("clock", due_at + 10.0)
    assert "clock" in forecast.worth_asking(due_at + 20.0), "asked for just now"
    for number in range(MOST_RECENT):
        forecast.asked(f"n{number}", due_at + 21.0)
    assert "clock" not in forecast.worth_asking(due_at + 30.0)


def test_a_look_always_leads_to_a_later_one_or_none() -> None:
    forecast = every(600.0, 12)
    at, looks = 11 * 600.0, 0
    while (next_at := forecast.candidates.next_at) < math.inf:
        assert next_at > at or looks == 0
        at, looks = max(at, next_at), looks + 1
        forecast.worth_asking(at)
    assert 2 <= looks < 20
    assert "m" not in forecast.candidates.due


# ---- remembering -------------------------------------------------------------


def test_what_is_kept_and_taken_in_again_forecasts_alike_on_another_clock() -> None:
    usage = Usage()
    usage.seeded(0.0, 1e9, ())
    for turn in range(30):
        usage.asked("a", turn * 900.0)
        usage.asked("b", turn * 900.0 + 15.0)
    usage.started("a", 7.0)
    usage.woke("a", 0.5)
    at, shift_s = 29 * 900.0 + 860.0, -1e5
    again = Usage()
    again.seeded(at + shift_s, 1e9 - shift_s, usage.to_keep(["a", "b", "never"]))
    assert set(again.forecast.habits) == {"a", "b"}
    for moment in (at, at + 30.0, at + 5000.0):
        for model in "ab":
            expected = usage.forecast.chance(model, moment, 60.0)
            assert again.forecast.chance(model, moment + shift_s, 60.0) == pytest.approx(expected, rel=1e-3)
    assert (again.reload("a", 0), again.wake("a", 0)) == (7.0, 0.5)
    assert set(again.forecast.worth_asking(at + shift_s)) == {"a", "b"}
    again.asked("a", at + shift_s)
    assert again.forecast.expected(at + shift_s)["b"][1] == "a"


def test_who_was_asked_for_in_this_life_is_not_overwritten_and_without_the_time_nothing_is_kept() -> None:
    usage = Usage()
    usage.asked("m", 5.0)
    assert usage.unsaved == {"m"}
    assert usage.to_keep(["m"]) == ()
    usage.seeded(5.0, 100.0, ())
    (kept,) = usage.to_keep(["m"])
    assert kept.asked_at == 105.0
    usage.asked("m", 6.0)
    usage.seeded(6.0, 100.0, [kept])
    assert usage.forecast.habits["m"].heat.at == 6.0


def test_a_clock_that_was_set_back_moves_the_last_request_to_now() -> None:
    usage = Usage()
    usage.seeded(0.0, 1e9, ())
    usage.asked("m", 500.0)
    again = Usage()
    again.seeded(10.0, 1e9, usage.to_keep(["m"]))
    assert again.forecast.habits["m"].heat.at == 10.0


def test_a_stream_that_broke_off_is_soon_not_expected_to_go_on() -> None:
    forecast = every(1.0, 2000)
    assert forecast.chance("m", 2001.0, 60.0) > 0.9
    assert forecast.chance("m", 2300.0, 60.0) < 0.3
