"""Makes of vLLM's one span per request what it tells in numbers: its queue, prefill and decode, each with its place."""

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import NonRecordingSpan

from heliosd.telemetry.tracing import Tracing

_REQUEST = "llm_request"
_PHASES = (
    ("queue", "gen_ai.latency.time_in_queue"),
    ("prefill", "gen_ai.latency.time_in_model_prefill"),
    ("decode", "gen_ai.latency.time_in_model_decode"),
)


class EngineSpans(SpanProcessor):
    """Looks at spans as they end. vLLM makes its own as the last token is there, and knows how long each phase took."""

    def __init__(self) -> None:
        self.tracing: Tracing | None = None
        """Where the phases go; set once there is one."""

    def on_end(self, span: ReadableSpan) -> None:
        known = span.attributes or {}
        if self.tracing is None or span.name != _REQUEST or span.end_time is None or span.start_time is None:
            return
        took = [(phase, known.get(name)) for phase, name in _PHASES]
        spent = [(phase, int(value * 1e9)) for phase, value in took if isinstance(value, float) and value >= 0]
        at_ns = max(span.start_time, span.end_time - sum(ns for _, ns in spent))
        parent = NonRecordingSpan(span.context)
        for phase, ns in spent:
            child = self.tracing.begin(phase, under=parent, at_ns=at_ns)
            at_ns = min(at_ns + ns, span.end_time)
            child.end(at_ns)
