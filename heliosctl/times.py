"""Moments as people say them. The only place of heliosctl that asks for the wall clock to show it."""

import time
from datetime import datetime

from heliosd.core.units import format_seconds


def ago(at: float, now: float | None = None) -> str:
    """`3m 20s ago` for seconds since the epoch; beyond a day, days."""
    span_s = max(0.0, (time.time() if now is None else now) - at)
    if span_s >= 2 * 86400:
        return f"{span_s / 86400:.0f} days ago"
    return f"{format_seconds(span_s)} ago"


def clock(at: float) -> str:
    """Local date and time, to the millisecond, in a form that sorts."""
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="milliseconds")[:-6]
