"""Which bytes of a file are there: a few pieces that do not touch one another. Pure."""

import bisect
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
"""From this byte up to, without, that one."""


class Spans:
    def __init__(self, pieces: Iterable[Span] = ()) -> None:
        self._pieces: list[Span] = []
        for start, end in pieces:
            self.add(start, end)

    def add(self, start: int, end: int) -> int:
        """These bytes are there now; returns how many of them were not."""
        if end <= start:
            return 0
        first = bisect.bisect_left(self._pieces, start, key=lambda piece: piece[1])
        last = bisect.bisect_right(self._pieces, end, key=lambda piece: piece[0])
        touched = self._pieces[first:last]
        whole = (min(start, *(piece[0] for piece in touched), end), max(end, *(piece[1] for piece in touched), start))
        self._pieces[first:last] = [whole]
        return whole[1] - whole[0] - sum(piece[1] - piece[0] for piece in touched)

    @property
    def pieces(self) -> tuple[Span, ...]:
        """In order."""
        return tuple(self._pieces)

    @property
    def total_bytes(self) -> int:
        return sum(end - start for start, end in self._pieces)

    @property
    def prefix_bytes(self) -> int:
        """How many bytes are there from the first on without a gap."""
        return self._pieces[0][1] if self._pieces and self._pieces[0][0] == 0 else 0

    def covers(self, start: int, end: int) -> bool:
        """Whether all of these bytes are there."""
        return not any(self.gaps(start, end))

    def gaps(self, start: int, end: int) -> Iterator[Span]:
        """What is missing of these bytes, in order."""
        for begin, until in self._pieces:
            if until <= start:
                continue
            if begin >= end:
                break
            if begin > start:
                yield start, begin
            start = until
        if start < end:
            yield start, end
