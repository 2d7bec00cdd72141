import heapq
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.estimation.kv_overflow import Lengths, Load, lengths_by, lengths_of, overflow

CHAT = Load(rate=4.0, prompt=lengths_by(800, 2400), output=lengths_by(300, 900), speed=30.0)
RATES = st.floats(0.01, 500)
SIZES = st.integers(1_000, 5_000_000)


def simulated_share(load: Load, prompts: list[float], outputs: list[float], capacity: int, seconds: float) -> float:
    """The share of time in which more than `capacity` tokens are held, by playing the arrivals."""
    dice = random.Random(7)
    events: list[tuple[float, float, float, float]] = []
    now = 0.0
    while now < seconds:
        now += dice.expovariate(load.rate)
        heapq.heappush(events, (now, dice.choice(prompts), dice.choice(outputs), 0.0))
    starts = sorted((start, prompt, output / load.speed) for start, prompt, output, _ in events)
    over = samples = 0
    active: list[tuple[float, float, float]] = []
    place = 0
    moment = seconds * 0.1
    while moment < seconds:
        while place < len(starts) and starts[place][0] <= moment:
            active.append(starts[place])
            place += 1
        active = [request for request in active if request[0] + request[2] > moment]
        held = sum(prompt + (moment - start) * load.speed for start, prompt, _ in active)
        samples += 1
        over += held > capacity
        moment += 0.5
    return over / samples


def test_littles_law() -> None:
    found = overflow(CHAT, 1_000_000)
    assert found.sequences == pytest.approx(4.0 * 300 / 30)


def test_constant_lengths_hold_the_prompt_and_half_the_output() -> None:
    load = Load(rate=2.0, prompt=lengths_by(1000), output=lengths_by(200), speed=20.0)
    assert overflow(load, 10**6).tokens == pytest.approx(2.0 * 10 * (1000 + 100))


def test_the_share_of_time_is_what_playing_it_gives() -> None:
    dice = random.Random(3)
    prompts = [dice.lognormvariate(6.2, 0.8) for _ in range(4000)]
    outputs = [dice.lognormvariate(5.2, 0.7) for _ in range(4000)]
    load = Load(rate=6.0, prompt=lengths_of(prompts), output=lengths_of(outputs), speed=25.0)
    mean = overflow(load, 10**9)
    for factor in (0.5, 1.0, 1.5):
        capacity = int(mean.tokens + factor * mean.deviation)
        told = overflow(load, capacity).full_share
        assert told == pytest.approx(simulated_share(load, prompts, outputs, capacity, 6000), abs=0.03)


def test_a_log_normal_has_the_mean_and_the_percentile_that_were_asked_for() -> None:
    lengths = lengths_by(500, 1500)
    assert sum(lengths.points) / len(lengths.points) == pytest.approx(500)
    above = sum(point > 1500 for point in lengths.points) / len(lengths.points)
    assert above == pytest.approx(0.05, abs=0.02)


def test_observed_lengths_have_their_own_moments() -> None:
    assert lengths_of([1, 2, 3]) == Lengths(2.0, 14 / 3, 12.0, (1.0, 2.0, 3.0))


def test_the_cache_fills_when_more_is_asked_for_than_there_is() -> None:
    held = overflow(CHAT, 10**9).tokens
    soon, never = overflow(CHAT, int(held / 2)), overflow(CHAT, int(held * 2))
    assert 0 < soon.seconds_until_full < math.inf
    assert never.seconds_until_full == math.inf
    assert soon.full_share > 0.9
    assert never.full_share < 0.1


def test_a_constant_load_fills_at_the_moment_one_can_compute() -> None:
    # Before the first request ends, `rate · t · (prompt + speed · t / 2)` tokens are held.
    load = Load(rate=1.0, prompt=lengths_by(100), output=lengths_by(1000), speed=10.0)
    assert overflow(load, 20 * 100 + 5 * 400).seconds_until_full == pytest.approx(20.0, rel=1e-6)


def test_a_limit_of_sequences_limits_what_is_held() -> None:
    limited = Load(CHAT.rate, CHAT.prompt, CHAT.output, CHAT.speed, most_sequences=10)
    found = overflow(limited, 10**6)
    assert found.queue_grows
    assert found.sequences == pytest.approx(10)
    assert found.tokens < overflow(CHAT, 10**6).tokens


def test_blocks_cost_half_a_block_for_each_sequence() -> None:
    blocks = Load(CHAT.rate, CHAT.prompt, CHAT.output, CHAT.speed, block_tokens=17)
    extra = overflow(blocks, 10**6).tokens - overflow(CHAT, 10**6).tokens
    assert extra == pytest.approx(8 * overflow(CHAT, 10**6).sequences)


@pytest.mark.parametrize(("rate", "speed"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_nonsense_is_refused(rate: float, speed: float) -> None:
    load = Load(rate=rate, prompt=lengths_by(1), output=lengths_by(1), speed=speed)
    with pytest.raises(ValueError, match="cannot predict"):
        overflow(load, 1000)
    with pytest.raises(ValueError, match="cannot describe"):
        lengths_by(0)
    with pytest.raises(ValueError, match="cannot describe"):
        lengths_of([])


@given(rate=RATES, more=st.floats(0, 100), capacity=SIZES)
def test_a_higher_rate_never_fills_it_less(rate: float, more: float, capacity: int) -> None:
    low, high = (Load(value, CHAT.prompt, CHAT.output, CHAT.speed) for value in (rate, rate + more))
    assert overflow(high, capacity).full_share >= overflow(low, capacity).full_share - 1e-9
    assert overflow(high, capacity).seconds_until_full <= overflow(low, capacity).seconds_until_full * (1 + 1e-9)


@given(rate=RATES, capacity=SIZES, more=st.integers(0, 1_000_000))
def test_more_room_never_fills_sooner(rate: float, capacity: int, more: int) -> None:
    load = Load(rate, CHAT.prompt, CHAT.output, CHAT.speed)
    small, large = overflow(load, capacity), overflow(load, capacity + more)
    assert large.full_share <= small.full_share + 1e-9
    assert large.seconds_until_full >= small.seconds_until_full * (1 - 1e-9)
    assert large.fitting_rate >= small.fitting_rate * (1 - 1e-9)


@given(capacity=st.integers(10_000, 5_000_000), tolerance=st.floats(0.001, 0.4))
def test_the_fitting_rate_fits_and_a_higher_one_does_not(capacity: int, tolerance: float) -> None:
    rate = overflow(CHAT, capacity, tolerance).fitting_rate
    if rate > 0:
        fits = Load(rate, CHAT.prompt, CHAT.output, CHAT.speed)
        over = Load(rate * 1.01, CHAT.prompt, CHAT.output, CHAT.speed)
        assert overflow(fits, capacity).full_share <= tolerance + 1e-6
        assert overflow(over, capacity).full_share > tolerance
