"""/helios/v1/traces: the spans of one request, from the daemon's own memory."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aiohttp import web

from heliosd.api.asked import json_of
from heliosd.api.parts import Parts
from heliosd.api.routes import Answer, Route, Scope
from heliosd.core.timeline import Span, Timeline
from heliosd.errors import NotFound
from heliosd.wire import TraceEvent, TraceSpan, TraceView

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_NS = 1e9


async def trace(request: web.Request, parts: Parts) -> web.StreamResponse:
    name = request.match_info["id"]
    if parts.traces is None:
        raise NotFound(
            f"cannot show the trace of {name}: requests are not traced; set tracing.enabled = true and restart heliosd",
            code="not_traced",
        )
    spans, left_out = parts.traces.ring.find(name)
    if not spans:
        traces, kept = parts.traces.ring.size
        raise NotFound(
            f"cannot show the trace of {name}: it is not among the last {traces} traces ({kept} spans) that this node "
            "keeps since it began; it is too old, was not sampled, or went to another node",
            code="trace_not_found",
        )
    return json_of(view_of(spans, left_out))


def view_of(spans: Sequence["ReadableSpan"], left_out: int = 0) -> TraceView:
    """A trace's spans as they are shown; what is under way has no end."""
    ordered = sorted(spans, key=lambda span: span.start_time or 0)
    first_ns = ordered[0].start_time or 0
    views = [_span(span, first_ns) for span in ordered]
    known = {view.id for view in views}
    root = next((view for view in views if view.parent not in known), views[0])
    last_s = max(view.ended_s or view.began_s for view in views)
    total_s = (last_s if root.ended_s is None else root.ended_s) - root.began_s
    return TraceView(
        trace_id=f"{ordered[0].context.trace_id:032x}",
        began_at=first_ns / _NS,
        total_s=round(total_s, 6),
        unexplained_s=round(_unexplained(views, root, total_s), 6),
        left_out=left_out,
        spans=views,
    )


def _unexplained(views: Sequence[TraceSpan], root: TraceSpan, total_s: float) -> float:
    above = {view.parent for view in views}
    ends = root.began_s + total_s
    leaves = [view for view in views if view.id not in above and view is not root]
    told = [Span(each.name, each.began_s, min(ends if each.ended_s is None else each.ended_s, ends)) for each in leaves]
    shifted = [
        Span(each.phase, max(0.0, each.began_s - root.began_s), max(0.0, each.ended_s - root.began_s)) for each in told
    ]
    return Timeline(tuple(shifted), total_s).other_s


def _span(span: "ReadableSpan", first_ns: int) -> TraceSpan:
    return TraceSpan(
        id=f"{span.context.span_id:016x}",
        parent=f"{span.parent.span_id:016x}" if span.parent else None,
        name=span.name,
        began_s=round(((span.start_time or 0) - first_ns) / _NS, 6),
        ended_s=round((span.end_time - first_ns) / _NS, 6) if span.end_time is not None else None,
        error=None if span.status.is_ok or span.status.is_unset else span.status.description or "failed",
        attributes=_plain(span.attributes or {}),
        events=[
            TraceEvent(name=event.name, at=event.timestamp / _NS, attributes=_plain(event.attributes or {}))
            for event in span.events
        ],
        links=sorted({f"{link.context.trace_id:032x}" for link in span.links}),
    )


def _plain(attributes: Mapping[str, object]) -> dict[str, str | int | float | bool | list[str]]:
    return {
        name: value if isinstance(value, str | int | float | bool) else [str(each) for each in _listed(value)]
        for name, value in attributes.items()
    }


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, Sequence) else (value,)


ROUTES = (
    Route(
        "GET",
        "/helios/v1/traces/{id}",
        trace,
        Scope.ADMIN,
        "The trace of a request, by its id (`X-Request-Id`) or the trace's.",
        Answer("its spans", TraceView),
        detail="Where `tracing.enabled` is set. The node keeps the last 256 traces, with 4096 spans at most, in "
        "memory; what is under way is among them. What engines' own processes say of their "
        "start goes to the collector only.",
        errors=("not_traced", "trace_not_found"),
    ),
)
