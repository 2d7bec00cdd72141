"""A replica whose KV cache runs over gets fewer requests, and more again when there is room: without swinging."""

import random

from heliosd.core.messages import ReplicaPressed
from heliosd.core.names import ReplicaId
from heliosd.core.pressure import Pressure


def told(at: float, used: float, *, running: int = 16, preemptions: int = 0) -> ReplicaPressed:
    return ReplicaPressed(at, ReplicaId("r1"), running, 0, used, preemptions)


def test_a_cache_about_to_run_over_cuts_the_limit_and_says_why() -> None:
    pressure = Pressure(16, 16)
    assert pressure.told(told(1.0, 0.5), 16) is None
    why = pressure.told(told(10.0, 0.95), 16)
    assert pressure.limit == 12
    assert why is not None and "at most 12" in why and "95%" in why


def test_sequences_that_were_put_back_cut_it_whatever_the_share() -> None:
    pressure = Pressure(16, 16)
    pressure.told(told(1.0, 0.5), 16)
    assert "3 sequences were put back" in (pressure.told(told(2.0, 0.6, preemptions=3), 16) or "")


def test_a_cache_that_fills_fast_is_cut_before_it_is_full() -> None:
    pressure = Pressure(16, 16)
    for at in range(1, 20):
        pressure.told(told(at, min(1.0, 0.05 * at)), 16)
        if pressure.limit < 16:
            break
    assert pressure.used_ratio < 0.92, "it was foreseen"


def test_it_grows_again_only_after_calm_and_while_it_is_in_the_way() -> None:
    pressure = Pressure(16, 16)
    pressure.told(told(1.0, 0.95), 16)
    low = pressure.limit
    pressure.told(told(2.0, 0.4), low)
    assert pressure.limit == low, "not at once"
    pressure.told(told(8.0, 0.4), low - 1)
    assert pressure.limit == low, "nobody needs more"
    pressure.told(told(9.0, 0.4), low)
    assert pressure.limit == low + 1


def test_one_sequence_is_always_allowed() -> None:
    pressure = Pressure(4, 4)
    for at in range(1, 50):
        pressure.told(told(float(at), 1.0, running=pressure.limit, preemptions=at), pressure.limit)
    assert pressure.limit == 1


def test_it_settles_where_the_cache_is_well_used() -> None:
    """A cache for twenty sequences, more than enough requests: the limit comes to rest near it and stays there."""
    chance, pressure = random.Random(1), Pressure(64, 64)
    limits, preemptions = [], 0
    for at in range(1, 600):
        wanted = pressure.limit * (0.9 + 0.2 * chance.random()) / 20
        preemptions += max(0, int((wanted - 1.0) * 20))
        pressure.told(
            told(float(at), min(1.0, wanted), running=pressure.limit, preemptions=preemptions), pressure.limit
        )
        limits.append(pressure.limit)
    settled = limits[200:]
    assert min(settled) >= 10
    assert max(settled) <= 22
