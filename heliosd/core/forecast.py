"""How likely a model is asked for soon: from its rate, its pauses, its hours of the week, and whom it follows.

Pure; a request and a question take constant time.

The parts come together in this order. Rates (`heat`) say `1 - exp(-rate · time)`; once weeks are known, the hour of
the week (`week`) has as much to say as `weeks ÷ (weeks + 1)`. That is what is thought of a model whose pauses are not
known; those seen (`gaps`) then weigh more and more. Who follows another model (`sequences`) is expected with the larger
of the two probabilities: they are not independent. Only who comes by its own clock is not also said to follow.
"""

import math
from dataclasses import dataclass, field

from heliosd.core.candidates import LEAD_S, Candidates, Peak
from heliosd.core.gaps import Gaps
from heliosd.core.heat import Heat
from heliosd.core.sequences import WINDOW_S, Sequences
from heliosd.core.week import HOUR_S, Week, hour_of

SILENCE = 1.5
"""Requests that a rate lets expect in a time in which none came: if more, the rate is taken to have sunk to that."""
WORTH_A_LOOK = 0.2
"""Of the minutes of an hour of the week; a model asked for in fewer is no candidate for that alone."""


@dataclass(slots=True)
class Habit:
    """What is remembered of one model."""

    heat: Heat = field(default_factory=Heat)
    gaps: Gaps = field(default_factory=Gaps)
    week: Week | None = None
    """None while the time of day is not known."""


@dataclass
class Forecast:
    """Of all models. Written by `Usage` alone."""

    habits: dict[str, Habit] = field(default_factory=dict)
    sequences: Sequences = field(default_factory=Sequences)
    candidates: Candidates = field(default_factory=Candidates)
    epoch_offset_s: float | None = None
    """From the node's clock to seconds since the epoch; None: not told, then hours of the week are not counted."""
    _expected: dict[str, tuple[float, str]] = field(default_factory=dict)
    _expected_at: float = -math.inf

    def asked(self, model: str, at: float) -> None:
        habit = self.habits.get(model)
        if habit is None:
            habit = self.habits[model] = Habit()
            awake = False
        else:
            gap_s = at - habit.heat.at
            habit.gaps.passed(gap_s)
            awake = gap_s <= WINDOW_S
        habit.heat.asked(at)
        if not awake:
            self.sequences.woke(model, at)
        self._expected_at = -math.inf
        if self.epoch_offset_s is not None:
            epoch_s = at + self.epoch_offset_s
            if habit.week is None:
                habit.week = Week(hour_of(epoch_s))
            habit.week.asked(epoch_s)
        self.candidates.asked(model)
        if habit.gaps.peaks:
            self.look_at(model, at + habit.gaps.peaks[0][0] - LEAD_S)

    def look_at(self, model: str, at: float) -> None:
        """Find out then whether the model is likely to be asked for."""
        self.candidates.look_at(model, at)

    def forget(self, model: str) -> None:
        self.habits.pop(model, None)
        self.sequences.forget(model)
        self.candidates.forget(model)

    def chance(self, model: str, at: float, within_s: float) -> float:
        """The probability that the model is asked for within so many seconds."""
        habit = self.habits.get(model)
        followed = self.expected(at).get(model)
        if habit is None:
            return followed[0] if followed else 0.0
        alone = habit.gaps.chance(at - habit.heat.at, within_s, self.by_rate(habit, at, within_s))
        return max(alone, followed[0]) if followed and not habit.gaps.peaks else alone

    def by_rate(self, habit: Habit, at: float, within_s: float) -> float:
        """The same from rates alone."""
        heat = habit.heat
        rate = heat.rate(at)
        if (silent_s := at - heat.at) * rate > SILENCE:
            rate = SILENCE / silent_s
        recent = -math.expm1(-rate * within_s)
        if habit.week is None or self.epoch_offset_s is None:
            return recent
        usual, weeks = habit.week.chance(at + self.epoch_offset_s + within_s / 2)
        if weeks <= 0:
            return recent
        share = weeks / (weeks + 1)
        return (1 - share) * recent + share * (1 - math.pow(1 - usual, within_s / 60))

    def expected(self, at: float) -> dict[str, tuple[float, str]]:
        """Who follows those that woke just now: the probability, and after whom."""
        if at != self._expected_at:
            self._expected, self._expected_at = self.sequences.expected(at), at
        return self._expected

    def next_s(self, model: str, at: float) -> float | None:
        """Seconds until it is asked for next, in the mean; None: nothing tells."""
        habit = self.habits.get(model)
        if habit is None:
            return None
        left_s = habit.gaps.left_s(at - habit.heat.at)
        rate = habit.heat.rate(at)
        return left_s if left_s is not None else 1 / rate if rate > 0 else None

    def come_due(self, at: float) -> None:
        """Let time pass for the pauses that end now."""
        self.candidates.come_due(at, lambda model: self._peak(model, at))

    def worth_asking(self, at: float) -> list[str]:
        """Models of which `chance` may be high now, those that follow another first."""
        chosen = self.candidates
        self.come_due(at)
        if self.epoch_offset_s is not None:
            epoch_s = at + self.epoch_offset_s + HOUR_S / 60
            if hour_of(epoch_s) != chosen.hour:
                chosen.hour = hour_of(epoch_s)
                chosen.this_hour = tuple(
                    model
                    for model, habit in self.habits.items()
                    if habit.week is not None and habit.week.chance(epoch_s)[0] >= WORTH_A_LOOK
                )
        return chosen.names(self.expected(at))

    def _peak(self, model: str, at: float) -> Peak | None:
        habit = self.habits.get(model)
        peak = habit.gaps.next_peak(at - habit.heat.at) if habit else None
        return (habit.heat.at + peak[0], habit.heat.at + peak[1]) if habit and peak else None
