"""How near predictions came to what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from heliosd.estimation.robust import median, quantile

TOLERANCE = 0.01
"""Taking so much more than was set aside does not count as a broken promise."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One number of one start, in bytes."""

    likely_bytes: int
    booked_bytes: int
    """What was set aside for it, margin included."""
    measured_bytes: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of many starts: the ratios are |likely - measured| / measured."""

    count: int
    median: float
    p90: float
    worst: float
    under_share: float
    """Of the starts, those that took more than was set aside by over 1 %."""


def error_ratio(predicted_bytes: int, measured_bytes: int) -> float | None:
    """(predicted - measured) / measured: below zero, too little was predicted.

    None where nothing was measured though something was predicted: there is no ratio to nothing.
    """
    if measured_bytes <= 0:
        return None if predicted_bytes else 0.0
    return (predicted_bytes - measured_bytes) / measured_bytes


def is_under(booked_bytes: int, measured_bytes: int) -> bool:
    """Whether it took more than was set aside, by over 1 %."""
    return measured_bytes > booked_bytes * (1 + TOLERANCE)


def accuracy(starts: Sequence[Checked]) -> Accuracy | None:
    """None when there is no start with a ratio."""
    checked = [
        (abs(ratio), is_under(each.booked_bytes, each.measured_bytes))
        for each in starts
        if (ratio := error_ratio(each.likely_bytes, each.measured_bytes)) is not None
    ]
    if not checked:
        return None
    errors = [error for error, _ in checked]
    under = sum(each for _, each in checked)
    return Accuracy(len(checked), median(errors), quantile(errors, 0.9), max(errors), under / len(checked))
