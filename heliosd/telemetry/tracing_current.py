"""The trace of the request that is being worked on. Costs nothing when tracing is off: it imports no library."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heliosd.telemetry.tracing_request import RequestTrace

request_trace: "ContextVar[RequestTrace | None]" = ContextVar("request_trace", default=None)
"""None: tracing is off, or no request is being worked on."""
