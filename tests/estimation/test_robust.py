"""Quantiles, bounds that one absurd value cannot move, and Student's t against its tables."""

import pytest

from heliosd.estimation.robust import bounds, median, moments, quantile, student_99, winsorized


def test_quantiles_are_values_that_were_there() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [quantile(values, share) for share in (0.0, 0.2, 0.5, 0.9, 1.0)] == [1, 1, 3, 5, 5]
    assert median(values) == 3
    assert median([1.0, 4.0]) == 2.5


@pytest.mark.parametrize(
    ("freedom", "tabled"), [(4, 3.747), (5, 3.365), (8, 2.896), (10, 2.764), (30, 2.457), (120, 2.358), (10**6, 2.326)]
)
def test_students_t_is_as_tabled(freedom: int, tabled: float) -> None:
    assert student_99(freedom) == pytest.approx(tabled, rel=0.005)


def test_the_absurd_one_is_moved_to_the_others() -> None:
    assert winsorized([1.0, 2.0, 1000.0, 3.0, 2.0], 0.1)[2] < 10
    assert winsorized([1.0, 2.0, -1000.0, 3.0, 2.0], 0.1)[2] > -10


def test_of_two_nobody_knows_which_is_absurd() -> None:
    assert winsorized([1.0, 1000.0], 0.1) == [1.0, 1000.0]
    assert winsorized([], 0.1) == []


def test_what_happens_twice_in_twenty_is_true() -> None:
    assert bounds([0.0] * 18 + [1.0, 1.0], 0.01)[1] == 1.0


def test_what_is_far_beyond_all_sense_may_happen_twice() -> None:
    values = [0.0] * 18 + [9.0, 9.0]
    assert max(winsorized(values, 0.01, absurd=0.5)) < 0.1
    assert max(winsorized(values[5:] + [9.0] * 4, 0.01, absurd=0.5)) == 9.0, "a third of them is not a fault"


def test_what_is_skewed_upwards_counts_twice() -> None:
    assert moments([0.0, 0.0, 0.0, 4.0]).squares == 18.0
    assert moments([4.0, 4.0, 4.0, 0.0]).squares == 12.0
    assert moments([1.0, 3.0]).squares == 2.0
