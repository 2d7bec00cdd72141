"""The bound that the benchmark compares with, counted by hand."""

import pytest

from tests.bench.store_dedup import FAMILY, PAIR, PAIR_APART, bound


def test_every_distinct_tensor_counts_once() -> None:
    one = 30 * 6.75 + 54
    assert bound([()]) == bound([(), ()]) == 1
    assert bound(PAIR) == pytest.approx((one + 2 * 6.75) / one)
    assert bound(PAIR_APART) == bound(FAMILY) == pytest.approx((one + 4 * 6.75) / one)
