"""The caching allocator takes more than it is asked for, by the rules of its source."""

from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.core.units import MiB
from heliosd.estimation.allocator import allocated_runs, large_allocation
from tests.effort import examples

SIZES = st.lists(st.integers(1, 14 * MiB), max_size=5)


def allocated(sizes: list[int]) -> int:
    return allocated_runs([(sizes, 1)])


def test_a_large_request_takes_whole_segments_unless_much_is_left() -> None:
    assert large_allocation(32 * MiB) == 32 * MiB
    assert large_allocation(31 * MiB + MiB // 2) == 32 * MiB, "half a MiB is too little to split off"
    assert large_allocation(30 * MiB + 512) == 30 * MiB + 512, "nearly 2 MiB are split off for others"
    assert large_allocation(30 * MiB + 1) == 30 * MiB + 512, "in grains of 512 bytes"


def test_small_requests_are_rounded_to_grains() -> None:
    assert allocated([1, 512, 513]) == 512 + 512 + 1024
    assert allocated([MiB]) == MiB


def test_requests_from_one_to_ten_mib_share_segments() -> None:
    assert allocated([8 * MiB]) == 8 * MiB, "12 of 20 MiB are left for others"
    assert allocated([8 * MiB, 8 * MiB]) == 16 * MiB
    assert allocated([9 * MiB + MiB // 2] * 2) == 20 * MiB, "1 MiB at the end of the segment is nobody's"
    assert allocated([7 * MiB] * 3) == 21 * MiB, "the third needs a segment of its own"


def test_the_best_block_is_taken() -> None:
    # 9 leaves 11, 8 of them leave 3; the next 3 go there and not into a new segment.
    assert allocated([9 * MiB, 8 * MiB, 3 * MiB]) == 20 * MiB


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(SIZES, st.integers(0, 40)), max_size=3))
def test_runs_are_their_requests_one_after_the_other(runs: list[tuple[list[int], int]]) -> None:
    plain = [size for sizes, times in runs for _ in range(times) for size in sizes]
    assert allocated_runs(runs) == allocated(plain)
    assert sum(plain) <= allocated(plain)


def test_absurdly_many_layers_take_no_time() -> None:
    taken = allocated_runs([([3 * MiB, 20 * MiB], 10**12)])
    assert taken >= 10**12 * 23 * MiB
