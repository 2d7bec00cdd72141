"""When devices will be full, and what would change that."""

from typing import Literal

from pydantic import Field

from heliosd.wire.base import Wire


class HourOfDayView(Wire):
    hour: int = Field(description="UTC")
    seen_bytes: int = Field(description="needed at most, in the last week")
    expected_bytes: int = Field(description="at most, in the last week of the horizon")


class TrendView(Wire):
    """The true one lies between `low` and `high` nine times in ten, if days are independent."""

    bytes_per_day: float
    low: float
    high: float


class CapacityRow(Wire):
    place: str = Field(description="a device, or `wanted`: what all models need that are wanted at once")
    name: str
    state: Literal["unknown", "full", "in_sight", "not_in_sight"]
    room_bytes: int = Field(description="the capacity less what is held in reserve")
    peak_bytes: int = Field(description="needed at once at most, in the last week; with what is not ours")
    expected_bytes: int = Field(description="at most, within the horizon")
    trend: TrendView | None = Field(description="none: it takes more days to tell")
    full_in_s: float | None = Field(description="none: not within the horizon, or not known")
    earliest_s: float | None
    latest_s: float | None
    hours: int = Field(description="that were counted")
    note: str
    by_hour: list[HourOfDayView] = Field([], description="empty where too little is known")


class ModelNeed(Wire):
    model: str
    hours: int = Field(description="in which it was wanted")
    need_bytes: int = Field(description="of a replica as it is served now")
    then_bytes: int | None = Field(description="with the change; none: it fits not")
    reason: str


class WhatIf(Wire):
    change: str = Field(description="`+ 1 x H100`, or a precision")
    more_bytes: int = Field(description="of room")
    need_ratio: float = Field(description="of what models need then and now, by the hours they were wanted")
    wanted: CapacityRow = Field(description="all models together, then")
    models: list[ModelNeed]


class CapacityView(Wire):
    horizon_s: float
    rows: list[CapacityRow]
    what_if: WhatIf | None = None
