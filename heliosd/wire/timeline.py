"""The start of a replica, phase by phase."""

from pydantic import Field

from heliosd.wire.base import Wire


class SpanView(Wire):
    phase: str
    began_s: float = Field(description="since it was decided, or fetched or staged for it before")
    ended_s: float
    within: str = Field("", description="the phase it is a part of; empty: none")


class TimelineView(Wire):
    replica: str
    model: str | None
    state: str = Field(description="starting, ready or ended")
    began_at: float = Field(description="seconds since the epoch")
    total_s: float = Field(description="since then, until the last phase ended")
    other_s: float = Field(description="of that, what no phase tells of")
    spans: list[SpanView] = Field(description="phases that have ended")
    expected: dict[str, float] = Field({}, description="seconds of each phase, as earlier starts tell; while starting")
    left_s: float | None = Field(None, description="until it is ready, as earlier starts tell; none: nobody can tell")
