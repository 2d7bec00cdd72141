"""In which hours of the week a model is asked for."""

from dataclasses import dataclass, field

HOUR_S = 3600.0
HOURS = 168
FADE = 0.6
"""Of a week, kept when the next has passed."""


def hour_of(epoch_s: float) -> int:
    """Hours since Thursday, 1970-01-01 00:00 UTC: modulo `HOURS` the hour of the week, divided by it the week."""
    return int(epoch_s // HOUR_S)


@dataclass(slots=True)
class Week:
    """Of one model: the minutes of each hour of the week in which it was asked, older weeks fading."""

    began: int
    """The hour in which it was first asked, since the epoch."""
    minute: int = -1
    """The last one that counted, since the epoch."""
    hours: dict[int, tuple[int, float]] = field(default_factory=dict)
    """By the hour of the week: the week counted last, and the minutes."""

    def asked(self, epoch_s: float) -> None:
        minute = int(epoch_s // 60)
        if minute <= self.minute:
            return
        self.minute = minute
        week, hour = divmod(hour_of(epoch_s), HOURS)
        last, minutes = self.hours.get(hour, (week, 0.0))
        self.hours[hour] = (week, minutes * FADE ** (week - last) + 1)

    def chance(self, epoch_s: float) -> tuple[float, float]:
        """The share of the minutes of this hour of the week in which it was asked, and how many earlier weeks tell so.

        Both fade alike; the running hour does not count until it is over.
        """
        now = hour_of(epoch_s)
        week, hour = divmod(now, HOURS)
        weeks = (now - self.began) // HOURS
        if weeks <= 0:
            return 0.0, 0.0
        known = (1 - FADE**weeks) / (1 - FADE)
        last, minutes = self.hours.get(hour, (week, 0.0))
        if last == week:
            return min(1.0, minutes / (60 * (known + 1))), known
        return min(1.0, minutes * FADE ** (week - last - 1) / (60 * known)), known
