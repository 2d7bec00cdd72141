"""Errors by the numbers."""

import pytest

from heliosd.estimation.accuracy import Checked, accuracy, error_ratio, is_under


def test_too_little_is_below_zero() -> None:
    assert error_ratio(90, 100) == pytest.approx(-0.1)
    assert error_ratio(110, 100) == pytest.approx(0.1)
    assert error_ratio(0, 0) == 0.0
    assert error_ratio(5, 0) is None


def test_one_percent_more_breaks_no_promise() -> None:
    assert not is_under(1000, 1010)
    assert is_under(1000, 1011)


def test_a_summary_of_ten() -> None:
    starts = [Checked(100 + error, 100, 100) for error in range(10)]
    found = accuracy([*starts[:-1], Checked(50, 50, 100)])
    assert found is not None
    assert (found.count, found.median, found.p90, found.worst) == (10, 0.045, 0.08, 0.5)
    assert found.under_share == 0.1


def test_the_margin_counts_for_the_promise_and_not_for_the_error() -> None:
    found = accuracy([Checked(100, 120, 110)])
    assert found is not None
    assert found.under_share == 0.0
    assert found.median == pytest.approx(10 / 110)


def test_nothing_measured_says_nothing() -> None:
    assert accuracy([]) is None
    assert accuracy([Checked(5, 5, 0)]) is None
