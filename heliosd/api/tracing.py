"""The trace of an HTTP request: begun when it arrives, told to its client, ended with its answer."""

from contextlib import AbstractContextManager, nullcontext

from aiohttp import web

from heliosd.api.parts import Parts
from heliosd.api.trace import TRACE
from heliosd.logs import trace_id_var
from heliosd.telemetry.tracing_current import request_trace

CONTEXT_HEADERS = frozenset({"traceparent", "tracestate"})
"""W3C's. Where requests are traced, engines and peers get ours instead of the client's."""


def begin_trace(request: web.Request, parts: Parts, route: str) -> None:
    """Where requests are traced. Of those that only look, such as a screen that is drawn anew, only the ones that
    belong to a trace already."""
    caller = request.headers.get("traceparent", "")
    if parts.traces is None or (request.method in ("GET", "HEAD") and not caller):
        return
    trace = request[TRACE]
    what = {
        "http.request.method": request.method,
        "url.path": request.path,
        "http.route": route,
        "client.address": request.remote or "unix",
        "helios.ticket": trace.ticket,
    }
    spans = trace.spans = parts.traces.request(f"{request.method} {route}", what, caller)
    request_trace.set(spans)
    if spans.kept:
        trace_id_var.set(spans.id)


def end_trace(request: web.Request, status: int) -> None:
    """The request is over."""
    trace = request[TRACE]
    if trace.spans is not None:
        trace.spans.note({"helios.key": trace.key.name if trace.key else None, "helios.from_peer": trace.peer})
        trace.spans.end(status, trace.code)


def stage(request: web.Request, name: str, *, from_start: bool = False) -> None:
    """What is done for the request from now on, or since it arrived."""
    if (spans := request[TRACE].spans) is not None:
        spans.stage(name, from_start=from_start)


def work(parts: Parts, name: str, what: dict[str, str]) -> AbstractContextManager[None]:
    """Something long that is done for a request: a span below its own, where requests are traced."""
    return parts.traces.work(name, what) if parts.traces else nullcontext()


def context_for(request: web.Request, by: dict[str, str | None]) -> tuple[tuple[str, str], ...]:
    """The headers for the engine or the peer that answers from now on; none where nothing is traced."""
    spans = request[TRACE].spans
    return () if spans is None else (("traceparent", spans.answering(by)),)
