"""A model that fails somewhere is left alone there for a while, then tried once."""

import pytest

from heliosd.core.breaker import DEATHS, WINDOW_S, Breakers, RetryBudget
from heliosd.core.names import DeviceId

G0, G1 = (DeviceId("g0"),), (DeviceId("g1"),)


def test_open_then_one_probe_then_closed() -> None:
    breakers = Breakers(base_s=2.0)
    breakers.start_failed("m", G0, 10.0, "boom")
    assert set(breakers.open_for("m", 11.0)) == {G0}
    assert not breakers.open_for("m", 12.0), "half-open: one may try"
    breakers.starting("m", G0)
    assert set(breakers.open_for("m", 12.0)) == {G0}, "and no second one beside the probe"
    breakers.started("m", G0)
    assert not breakers.open_for("m", 12.0)
    assert not breakers.by_model, "nothing is remembered of what works"


def test_each_failure_in_a_row_doubles_the_wait_up_to_a_minute() -> None:
    breakers = Breakers(base_s=2.0)
    waits = [breakers.start_failed("m", G0, 0.0, "boom").retry_at for _ in range(8)]
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_it_is_of_one_model_on_one_place() -> None:
    breakers = Breakers()
    breakers.start_failed("m", G0, 0.0, "boom")
    assert G1 not in breakers.open_for("m", 0.0)
    assert not breakers.open_for("other", 0.0)


def test_single_deaths_do_not_open_it_and_a_burst_does() -> None:
    breakers = Breakers()
    assert all(breakers.died("m", G0, at * WINDOW_S, "killed") is None for at in range(10))
    burst = [breakers.died("m", G1, 1000.0 + at, "killed") for at in range(DEATHS)]
    assert burst[:-1] == [None] * (DEATHS - 1)
    assert burst[-1] is not None and burst[-1].state(1003.0) == "open"


def test_a_probe_that_was_called_off_leaves_it_half_open() -> None:
    breakers = Breakers(base_s=1.0)
    breakers.start_failed("m", G0, 0.0, "boom")
    breakers.starting("m", G0)
    breakers.called_off("m", G0)
    assert not breakers.open_for("m", 1.0)


@pytest.mark.parametrize(("requests", "retries"), [(0, 3), (10, 4), (1000, 10)])
def test_retries_are_a_share_of_requests(requests: int, retries: int) -> None:
    budget = RetryBudget()
    for _ in range(requests):
        budget.asked()
    assert sum(budget.spend() for _ in range(2000)) == retries
