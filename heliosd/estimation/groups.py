"""A term's residuals by groups of starts that are alike."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from heliosd.estimation.loads import Asked, Level, Load, level_keys, residual
from heliosd.estimation.robust import Moments, moments, winsorized

_NEWEST = 200
"""Of a group, so many of the last count: engines, drivers and habits change."""
_FLOORS = {"weights": 0.002, "kv_cache": 0.002, "overhead": 0.05}
"""In units of the term: robust deviations smaller than this make nothing an outlier."""
_ABSURD = {"weights": 0.5, "kv_cache": 0.5, "overhead": 10.0}
"""In units of the term: further from the rest than this, a few values are faults of measuring and not a tail."""


@dataclass(frozen=True, slots=True)
class Point:
    asked: Asked
    keys: tuple[tuple[Level, Hashable], ...]
    value: float
    """The residual, in units of the term."""


class Groups:
    """The points of one term, in the order in which they happened."""

    def __init__(self, loads: Sequence[Load], term: str) -> None:
        self.floor, self.absurd = _FLOORS[term], _ABSURD[term]
        values = ((load.asked, residual(load, term)) for load in loads)
        self.points = tuple(Point(asked, level_keys(asked), value) for asked, value in values if value is not None)
        self._members: dict[tuple[Level, Hashable], list[Point]] = {}
        for point in self.points:
            for key in point.keys:
                self._members.setdefault(key, []).append(point)
        self._seen: dict[tuple[object, object], Moments] = {}

    def rings(self, asked: Asked, *, without: str | None = None) -> Iterator[tuple[Level, Moments]]:
        """For each level, widest first, the Winsorized moments of what belongs to it but not to the next.

        So no load counts twice. `without`: a revision whose loads are left out.
        """
        keys = level_keys(asked)
        for index, (level, key) in enumerate(keys):
            inner = keys[index + 1] if index + 1 < len(keys) else None
            if without is not None:
                yield level, self._ring(index, (level, key), inner, without)
                continue
            ring = ((level, key), inner)
            if ring not in self._seen:
                self._seen[ring] = self._ring(index, (level, key), inner, None)
            yield level, self._seen[ring]

    def believable(self, values: Sequence[float]) -> list[float]:
        return winsorized(values, self.floor, self.absurd)

    def _ring(
        self, index: int, key: tuple[Level, Hashable], inner: tuple[Level, Hashable] | None, without: str | None
    ) -> Moments:
        values: list[float] = []
        for point in reversed(self._members.get(key, ())):
            if inner is not None and point.keys[index + 1] == inner:
                continue
            if without is None or point.asked.revision != without:
                values.append(point.value)
                if len(values) == _NEWEST:
                    break
        return moments(self.believable(values))
