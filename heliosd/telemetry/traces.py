"""All that tracing consists of, put together. Imported only when it is on."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.sdk.trace import SpanProcessor

from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.tracing import Attributes, Origin, Tracing, fail
from heliosd.telemetry.tracing_current import request_trace
from heliosd.telemetry.tracing_engines import EngineSpans
from heliosd.telemetry.tracing_export import Exporter
from heliosd.telemetry.tracing_node import NodeSpans
from heliosd.telemetry.tracing_request import RequestTrace
from heliosd.telemetry.tracing_ring import Ring


class Traces:
    """The last traces in memory, and with an endpoint the way to a collector. Made on the running event loop."""

    def __init__(
        self,
        origin: Origin,
        metrics: Metrics,
        *,
        endpoint: str | None = None,
        headers: Mapping[str, str] | None = None,
        sample_ratio: float = 1.0,
    ) -> None:
        self.ring = Ring()
        self.exporter = Exporter(endpoint, headers or {}, metrics) if endpoint else None
        engines = EngineSpans()
        processors: list[SpanProcessor] = [self.ring, engines]
        if self.exporter is not None:
            processors.append(self.exporter)
        self.tracing = engines.tracing = Tracing(origin, processors, sample_ratio)
        self.node = NodeSpans(self.tracing, asyncio.get_running_loop().time)

    def request(self, name: str, attributes: Attributes, caller: str = "") -> RequestTrace:
        """Begin the trace of a request; `caller` is the `traceparent` that it came with, or empty."""
        return RequestTrace(self.tracing, name, attributes, caller=caller)

    @contextmanager
    def work(self, name: str, attributes: Attributes) -> Iterator[None]:
        """Something that takes time: a part of the request that is worked on, or a trace of its own."""
        asked = request_trace.get()
        span = self.tracing.begin(name, attributes, under=asked.root if asked else None)
        try:
            yield
        except BaseException as error:
            fail(span, f"{type(error).__name__}: {error}")
            raise
        finally:
            span.end()

    async def run(self) -> None:
        """Export until cancelled."""
        if self.exporter is not None:
            await self.exporter.run()
