"""What PyTorch's caching allocator really sets aside for a tensor on a GPU.

Requests are rounded to 512 bytes. From 10 MiB on each gets a segment of whole 2 MiB, and what is left is split off for
others only when it is more than 1 MiB; from 1 to 10 MiB several share a segment of 20 MiB by the same rule. So a
projection of 31.5 MiB takes 32, and a model of many such layers some dozens of MiB more than its parameters.
(c10/cuda/CUDACachingAllocator.cpp: kSmallSize, kMinLargeAlloc, kLargeBuffer, kRoundLarge, should_split.)
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from heliosd.core.units import MiB

GRAIN_BYTES = 512
SMALL_BYTES = MiB
LARGE_BYTES = 10 * MiB
SHARED_SEGMENT_BYTES = 20 * MiB
SEGMENT_BYTES = 2 * MiB
MOST_REPEATS = 8192
"""Layers have no more; beyond it the average stands for the rest."""


def large_allocation(size_bytes: int) -> int:
    """Bytes that a request of at least 10 MiB takes."""
    rounded = -(-size_bytes // GRAIN_BYTES) * GRAIN_BYTES
    segment = -(-rounded // SEGMENT_BYTES) * SEGMENT_BYTES
    return segment if segment - rounded <= SMALL_BYTES else rounded


def allocated_runs(runs: Iterable[tuple[Sequence[int], int]]) -> int:
    """Bytes that runs of requests take together, made in this order and kept, each `(sizes, how often)`: mostly layers.

    Only requests from 1 to 10 MiB depend on what came before; all others are counted at once.
    """
    total = 0
    free: list[int] = []
    for sizes, times in runs:
        shared = []
        for size in sizes:
            if size >= LARGE_BYTES:
                total += large_allocation(size) * times
            elif size <= SMALL_BYTES:
                total += -(-size // GRAIN_BYTES) * GRAIN_BYTES * times
            else:
                shared.append(-(-size // GRAIN_BYTES) * GRAIN_BYTES)
        if shared:
            some = min(times, MOST_REPEATS)
            taken = _repeated(shared, some, free)
            total += taken if some == times else taken * times // some
    return total


def _repeated(rounded_bytes: Sequence[int], times: int, free: list[int]) -> int:
    """Bytes of requests that share segments, made over and over; `free` holds, ascending, what is left of segments.

    What is left and large enough soon recurs, and from then on every period takes the same.
    """
    smallest = min(rounded_bytes)
    total, turn = 0, 0
    wasted: list[int] = []
    seen: dict[tuple[int, ...], tuple[int, int, int]] = {}
    while turn < times:
        usable = tuple(free[bisect_left(free, smallest) :])
        before = seen.get(usable)
        if before is not None:
            period = turn - before[0]
            periods = (times - turn) // period
            free.extend(wasted[before[2] :] * periods)
            free.sort()
            total += (total - before[1]) * periods
            turn += period * periods
            seen.clear()
            if turn == times:
                break
        seen[usable] = (turn, total, len(wasted))
        total += _shared_segments(rounded_bytes, free, smallest, wasted)
        turn += 1
    return total


def _shared_segments(rounded_bytes: Sequence[int], free: list[int], smallest: int, wasted: list[int]) -> int:
    """Bytes of one turn of requests. What is left of a block goes to `free`; what is too small to `wasted` as well."""
    total = 0
    for rounded in rounded_bytes:
        at = bisect_left(free, rounded)
        block = free.pop(at) if at < len(free) else SHARED_SEGMENT_BYTES
        left = block - rounded
        if left > SMALL_BYTES:
            insort(free, left)
            if left < smallest:
                wasted.append(left)
            total += rounded
        else:
            total += block
    return total
