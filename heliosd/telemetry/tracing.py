"""Makes spans, by OpenTelemetry's own library. Imported only when tracing is on.

Whether a trace is kept is decided where it begins: by its caller, where that says so, else by a ratio.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Value = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Value | None]
"""None: left out."""

_LIMITS = SpanLimits(max_span_attribute_length=2048, max_span_attributes=128, max_events=64, max_links=32)
_W3C = TraceContextTextMapPropagator()
_NOBODY = Context()
"""Parent of what begins a trace of its own."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who makes the spans."""

    service_name: str
    node: str
    version: str


class _Ids(RandomIdGenerator):
    """The library takes them from `random`, which whoever starts an engine in this process may seed with 0."""

    def generate_span_id(self) -> int:
        return secrets.randbits(64) or 1

    def generate_trace_id(self) -> int:
        return secrets.randbits(128) or 1


class Tracing:
    """Begins spans; each `processor` is told of every one."""

    def __init__(self, origin: Origin, processors: Sequence[SpanProcessor], sample_ratio: float = 1.0) -> None:
        resource = Resource.create(
            {
                "service.name": origin.service_name,
                "service.instance.id": origin.node,
                "service.version": origin.version,
            }
        )
        sampler = ParentBased(TraceIdRatioBased(sample_ratio))
        self.provider = TracerProvider(
            sampler, resource, shutdown_on_exit=False, id_generator=_Ids(), span_limits=_LIMITS
        )
        for processor in processors:
            self.provider.add_span_processor(processor)
        self._tracer = self.provider.get_tracer("heliosd", origin.version)

    def share(self) -> None:
        """Have libraries in this process, such as vLLM, make their spans here too. Once in a process's life."""
        trace.set_tracer_provider(self.provider)

    def begin(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        under: Span | None = None,
        caller: str = "",
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[SpanContext] = (),
        at_ns: int | None = None,
    ) -> Span:
        """Begin a span under another one, under a caller's `traceparent`, or a trace of its own.

        `at_ns`: when it began, in nanoseconds since the epoch; None: now. A `caller` that is no valid `traceparent` is
        as good as none.
        """
        parent = trace.set_span_in_context(under, _NOBODY) if under is not None else _W3C.extract(_header(caller))
        return self._tracer.start_span(
            name,
            context=parent,
            kind=kind,
            attributes=clean(attributes),
            links=[Link(link) for link in links],
            start_time=at_ns,
            record_exception=False,
        )


def clean(attributes: Attributes | None) -> dict[str, Value]:
    """Without those that have no value."""
    return {name: value for name, value in (attributes or {}).items() if value is not None}


def fail(span: Span, why: str) -> None:
    """What the span tells of has failed."""
    span.set_status(Status(StatusCode.ERROR, why[:2048]))


def traceparent(span: Span) -> str:
    """The span as the W3C's header `traceparent`."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, _NOBODY))
    return carrier.get("traceparent", "")


def trace_id_of(span: Span) -> str:
    return trace.format_trace_id(span.get_span_context().trace_id)


def now_ns() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns()


def _header(caller: str) -> dict[str, str]:
    return {"traceparent": caller} if caller else {}
