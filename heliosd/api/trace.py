"""What is noted about a request on its way, for its one log line and for the metrics."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from heliosd.core.names import PeerName, Ticket
from heliosd.engines.meter import Meter
from heliosd.state.keys import Key

if TYPE_CHECKING:
    from heliosd.telemetry.tracing_request import RequestTrace


@dataclass(slots=True)
class Trace:
    ticket: Ticket
    started: float
    """On the event loop's clock."""
    peer: PeerName | None = None
    """The node that passed the request on for its own client."""
    key: Key | None = None
    """On whose account it is; None where no key is needed."""
    model: str | None = None
    replica: str | None = None
    served_by: PeerName | None = None
    """The node the request was passed on to."""
    code: str = ""
    """Of the error, if it became one."""
    first_byte_s: float | None = None
    meter: Meter | None = None
    """What the engine that answered counts; None: it was not metered here."""
    response: web.StreamResponse | None = None
    """Set once its head was written: from then on no other answer can be given."""
    spans: "RequestTrace | None" = None
    """Where its stages are noted; None: it is not traced."""


TRACE = web.RequestKey("trace", Trace)
