"""Short storms, each from its own seed; `python -m tests.bench.storm` makes the long ones."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bench.storm_world import Storm
from tests.effort import examples


@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), devices=st.integers(1, 4))
def test_nobody_is_lost_doubled_or_starved_and_no_byte_is_promised_twice(seed: int, devices: int) -> None:
    tally = Storm(seed, devices).run(400)
    assert (tally.overcommits, tally.lost, tally.doubled, tally.broken) == (0, 0, 0, 0)
    assert tally.max_wait_ratio <= 1.0
