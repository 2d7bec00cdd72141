"""What became of models that were started ahead."""

from heliosd.core.names import ReplicaId
from heliosd.core.preloads import Preloads

R1, R2 = ReplicaId("r1"), ReplicaId("r2")


def test_asked_for_before_it_goes_is_a_hit_and_wastes_nothing() -> None:
    preloads = Preloads()
    assert preloads.hit_rate is None
    preloads.started(R1, "m", 100, 10.0)
    preloads.asked("other")
    preloads.asked("m")
    preloads.asked("m")
    preloads.gone(R1, 99.0)
    assert (preloads.hits, preloads.misses, preloads.wasted_byte_s, preloads.hit_rate) == (1, 0, 0.0, 1.0)


def test_gone_unasked_is_waste_and_bars_the_model_until_it_is_asked_for() -> None:
    preloads = Preloads()
    preloads.started(R1, "m", 100, 10.0)
    preloads.started(R2, "n", 7, 10.0)
    preloads.gone(R1, 15.0)
    preloads.gone(R1, 16.0)
    assert (preloads.hits, preloads.misses, preloads.wasted_byte_s) == (0, 1, 500.0)
    assert preloads.barred == {"m"}
    preloads.asked("n")
    assert preloads.hit_rate == 0.5
    preloads.asked("m")
    assert preloads.barred == set()


def test_who_was_not_started_ahead_counts_for_nothing() -> None:
    preloads = Preloads()
    preloads.gone(R1, 1.0)
    preloads.bar("m")
    assert preloads.hit_rate is None and preloads.barred == {"m"}
