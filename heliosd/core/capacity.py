"""When a device will be full: what each hour of the week needed there, and how that grows. Values in, values out.

Expected is the middle of what the same hours of earlier weeks needed, each raised by what the trend has added since.
The first hour in which that reaches the room is when it is full. It may be as soon as the upper end of the trend and of
what hours deviate say, and as late as the lower ends.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from heliosd.core.daily_trend import LEAST_DAYS, NONE, Trend, trend
from heliosd.core.hours import PlaceHour
from heliosd.core.week import HOURS

LEAST_HOURS = 48
DAY = 24
FULL_DAY = 12
"""Hours that must have been counted of a day, for its highest to say something."""
DEVIATION = 0.9
"""Of the hours are not above the upper end, and as many not below the lower."""

State = Literal["unknown", "full", "in_sight", "not_in_sight"]


@dataclass(frozen=True, slots=True)
class HourOfDay:
    """UTC."""

    hour: int
    seen_bytes: int
    """At most, in the last week."""
    expected_bytes: int
    """At most, in the last week before the horizon."""


@dataclass(frozen=True, slots=True)
class Projection:
    state: State
    """Full: it was so already, and is expected to be again within a week."""
    hours: int
    """That were counted."""
    room_bytes: int
    peak_bytes: int = 0
    """In the last week."""
    expected_bytes: int = 0
    """At most, within the horizon."""
    trend: Trend | None = None
    """Bytes a day; None: it takes more days to tell."""
    full_in_hours: int | None = None
    earliest_hours: int | None = None
    latest_hours: int | None = None
    """None: not within the horizon."""
    by_hour: tuple[HourOfDay, ...] = ()
    note: str = ""


def project(series: Iterable[PlaceHour], now: int, horizon_hours: int) -> Projection:
    """Of one place, from its hours in any order; `now` and theirs since the epoch."""
    rows = {each.hour: each for each in series if each.hour <= now}
    if len(rows) < LEAST_HOURS:
        room = rows[max(rows)].room_bytes if rows else 0
        return Projection("unknown", len(rows), room, note=f"not enough history: {len(rows)} hours of {LEAST_HOURS}")
    room = rows[max(rows)].room_bytes
    seen = {hour: float(each.peak_bytes) for hour, each in rows.items()}
    last_week = {hour: value for hour, value in seen.items() if hour > now - HOURS}
    days = _days(seen)
    grows = trend(days)
    used = grows or NONE
    slope = used.slope if used.certain else 0.0
    level = _Level(seen, now, slope)
    low, high = level.deviations()
    coming = range(now + 1, now + 1 + horizon_hours)
    line = [level.at(hour) + slope * (hour - now) / DAY for hour in coming]
    top = [level.at(hour) + high + max(used.high, slope) * (hour - now) / DAY for hour in coming]
    base = [level.at(hour) + low + min(used.low, slope) * (hour - now) / DAY for hour in coming]
    full = _first(line, room)
    peak = max(last_week.values(), default=0.0)
    state: State = "not_in_sight"
    if full is not None:
        state = "full" if peak >= room and full <= HOURS else "in_sight"
    return Projection(
        state=state,
        hours=len(rows),
        room_bytes=room,
        peak_bytes=int(peak),
        expected_bytes=max(0, int(max(line))),
        trend=grows,
        full_in_hours=full,
        earliest_hours=_first(top, room),
        latest_hours=_first(base, room),
        by_hour=_of_day(last_week, coming, line),
        note="" if grows else f"no trend yet: {len(days)} days of {LEAST_DAYS}; it is taken not to grow",
    )


def scaled(series: Iterable[PlaceHour], factor: float = 1.0, more_bytes: int = 0) -> list[PlaceHour]:
    """The same, had everything needed `factor` times as much, and were there so much more room."""
    return [
        replace(each, peak_bytes=int(each.peak_bytes * factor), room_bytes=each.room_bytes + more_bytes)
        for each in series
    ]


class _Level:
    """What an hour of the week needs, as if it were now: the middle of what it needed, raised by the trend since."""

    def __init__(self, seen: Mapping[int, float], now: int, slope: float) -> None:
        self._raised = {hour: value + slope * (now - hour) / DAY for hour, value in seen.items()}
        weekly, daily = defaultdict(list), defaultdict(list)
        for hour, value in self._raised.items():
            weekly[hour % HOURS].append(value)
            daily[hour % DAY].append(value)
        self._weekly = {hour: _middle(values) for hour, values in weekly.items()}
        self._daily = {hour: _middle(values) for hour, values in daily.items()}
        self._all = _middle(list(self._raised.values()))

    def at(self, hour: int) -> float:
        """An hour of the week that was never seen is like the same hour of other days."""
        found = self._weekly.get(hour % HOURS)
        return found if found is not None else self._daily.get(hour % DAY, self._all)

    def deviations(self) -> tuple[float, float]:
        """(below, above): within which the hours were; not above and not below zero."""
        off = sorted(value - self.at(hour) for hour, value in self._raised.items())
        reach = int(DEVIATION * (len(off) - 1))
        return min(0.0, off[len(off) - 1 - reach]), max(0.0, off[reach])


def _days(seen: Mapping[int, float]) -> dict[int, float]:
    """The highest of each day of which enough was counted."""
    found = defaultdict(list)
    for hour, value in seen.items():
        found[hour // DAY].append(value)
    return {day: max(values) for day, values in found.items() if len(values) >= FULL_DAY}


def _of_day(seen: Mapping[int, float], coming: range, line: Sequence[float]) -> tuple[HourOfDay, ...]:
    last = list(zip(coming, line, strict=True))[-HOURS:]
    return tuple(
        HourOfDay(
            hour,
            int(max((value for at, value in seen.items() if at % DAY == hour), default=0.0)),
            max(0, int(max((value for at, value in last if at % DAY == hour), default=0.0))),
        )
        for hour in range(DAY)
    )


def _first(line: Sequence[float], room: float) -> int | None:
    """Hours until it reaches the room."""
    return next((at + 1 for at, value in enumerate(line) if value >= room), None)


def _middle(values: Sequence[float]) -> float:
    ranked, half = sorted(values), len(values) // 2
    return ranked[half] if len(ranked) % 2 else (ranked[half - 1] + ranked[half]) / 2
