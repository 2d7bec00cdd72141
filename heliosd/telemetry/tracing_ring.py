"""The last traces, in memory, so that one can be looked at without a collector. Bounded in traces and in spans."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

KEPT_TRACES = 256
KEPT_SPANS = 4096
"""Of all of them together; a span takes some 3 KB."""
SPANS_OF_A_TRACE = 512
"""Later ones of the same trace are counted, not kept."""


class Ring(SpanProcessor):
    """Keeps spans from their beginning, so that what is under way can be seen too. Spans may come from any thread."""

    def __init__(self) -> None:
        self._traces: OrderedDict[int, list[Span]] = OrderedDict()
        self._tickets: dict[str, int] = {}
        self._left_out: dict[int, int] = {}
        self._spans = 0
        self._lock = threading.Lock()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        context = span.get_span_context()
        ticket = (span.attributes or {}).get("helios.ticket")
        with self._lock:
            of_trace = self._traces.setdefault(context.trace_id, [])
            if len(of_trace) >= SPANS_OF_A_TRACE:
                self._left_out[context.trace_id] = self._left_out.get(context.trace_id, 0) + 1
                return
            of_trace.append(span)
            self._spans += 1
            if isinstance(ticket, str):
                self._tickets[ticket] = context.trace_id
            while len(self._traces) > KEPT_TRACES or (self._spans > KEPT_SPANS and len(self._traces) > 1):
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        number, spans = self._traces.popitem(last=False)
        self._spans -= len(spans)
        self._left_out.pop(number, None)
        for span in spans:
            ticket = (span.attributes or {}).get("helios.ticket")
            if self._tickets.get(str(ticket)) == number:
                del self._tickets[str(ticket)]

    def find(self, name: str) -> tuple[Sequence[ReadableSpan], int]:
        """The spans of a trace, by its id or by a request's id, and how many of it were left out."""
        with self._lock:
            number = self._tickets.get(name)
            if number is None:
                number = int(name, 16) if len(name) == 32 and all(c in "0123456789abcdef" for c in name) else 0
            return tuple(self._traces.get(number, ())), self._left_out.get(number, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Traces and spans that are kept."""
        with self._lock:
            return len(self._traces), self._spans
