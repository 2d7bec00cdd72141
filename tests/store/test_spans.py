"""Pieces of a file, beside the set of bytes they stand for."""

from hypothesis import given
from hypothesis import strategies as st

from heliosd.store.spans import Spans

PIECES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)))


@given(PIECES, st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_spans_are_the_bytes_that_were_added(pieces: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    spans, known = Spans(), set[int]()
    for start, end in pieces:
        new = set(range(start, end)) - known
        assert spans.add(start, end) == len(new)
        known |= new
    assert {at for start, end in spans.pieces for at in range(start, end)} == known
    assert spans.total_bytes == len(known)
    assert all(left[1] < right[0] for left, right in zip(spans.pieces, spans.pieces[1:], strict=False))
    assert set(range(spans.prefix_bytes)) <= known and spans.prefix_bytes not in known
    missing = {at for start, end in spans.gaps(*asked) for at in range(start, end)}
    assert missing == set(range(*asked)) - known
    assert spans.covers(*asked) == (not missing)
