"""What is known of a model's use as plain data, with times since the epoch: it outlives the process and its clock."""

from dataclasses import dataclass

from heliosd.core.forecast import Forecast, Habit
from heliosd.core.gaps import Gaps
from heliosd.core.heat import Heat
from heliosd.core.sequences import Successors
from heliosd.core.week import Week


@dataclass(frozen=True, slots=True)
class Remembered:
    model: str
    asked_at: float
    """The last time, in seconds since the epoch."""
    heat: tuple[float, ...]
    reload_s: float | None = None
    """None: it was never started here."""
    wake_s: float | None = None
    gaps: tuple[tuple[int, float], ...] = ()
    """(bin, how many), without the empty ones."""
    burst: float = 0.0
    began: int | None = None
    """The first hour that was counted for the week, since the epoch."""
    hours: tuple[tuple[int, int, float], ...] = ()
    """(hour of the week, last week counted, minutes)."""
    wakes: float = 0.0
    follows: tuple[tuple[str, float], ...] = ()


def remembered(
    model: str, forecast: Forecast, epoch_offset_s: float, reload_s: float | None, wake_s: float | None
) -> Remembered:
    """What is known of one model. Raises KeyError when nothing is."""
    habit = forecast.habits[model]
    gaps, week = habit.gaps, habit.week
    successors = forecast.sequences.known.get(model, Successors())
    return Remembered(
        model=model,
        asked_at=habit.heat.at + epoch_offset_s,
        heat=tuple(habit.heat.levels),
        reload_s=reload_s,
        wake_s=wake_s,
        gaps=tuple((number, weight / gaps.unit) for number, weight in gaps.weights.items()),
        burst=gaps.burst,
        began=None if week is None else week.began,
        hours=() if week is None else tuple((hour, last, minutes) for hour, (last, minutes) in week.hours.items()),
        wakes=successors.wakes,
        follows=tuple(successors.follows.items()),
    )


def recalled(known: Remembered, forecast: Forecast, epoch_offset_s: float, at: float) -> None:
    """Put it back. A last time that lies ahead, the machine's clock having been set back, is taken to be now."""
    heat = Heat(min(known.asked_at - epoch_offset_s, at), list(known.heat))
    habit = Habit(heat, Gaps(dict(known.gaps), burst=known.burst))
    if known.began is not None:
        minute = int(known.asked_at // 60)
        habit.week = Week(known.began, minute, {hour: (last, minutes) for hour, last, minutes in known.hours})
    forecast.habits[known.model] = habit
    if known.wakes:
        forecast.sequences.known[known.model] = Successors(known.wakes, dict(known.follows))
    forecast.look_at(known.model, habit.heat.at)
