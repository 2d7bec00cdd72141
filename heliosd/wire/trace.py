"""The spans of one request, or of what the daemon did by itself."""

from pydantic import Field

from heliosd.wire.base import Wire


class TraceEvent(Wire):
    name: str
    at: float = Field(description="in seconds since the epoch")
    attributes: dict[str, str | int | float | bool | list[str]] = {}


class TraceSpan(Wire):
    id: str
    parent: str | None = Field(None, description="id of the span above; none: the first, or the caller's is elsewhere")
    name: str
    began_s: float = Field(description="since the trace's first span began")
    ended_s: float | None = Field(None, description="none: it is under way")
    error: str | None = Field(None, description="why what it tells of failed; none: it did not")
    attributes: dict[str, str | int | float | bool | list[str]] = {}
    events: list[TraceEvent] = []
    links: list[str] = Field([], description="ids of other traces that belong to it")


class TraceView(Wire):
    trace_id: str
    began_at: float = Field(description="in seconds since the epoch")
    total_s: float = Field(description="of its first span, or so far")
    unexplained_s: float = Field(description="of that, what no span without spans below it tells of")
    left_out: int = Field(0, description="later spans that were too many to be kept here")
    spans: list[TraceSpan] = Field(description="as they began")
