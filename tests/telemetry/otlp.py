"""A collector that takes OTLP over HTTP and keeps what it gets, as the protocol's own messages."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.loopback import on_loopback


@dataclass
class Collector:
    url: str = ""
    answers: list[tuple[int, ExportTraceServiceResponse]] = field(default_factory=list)
    """What the next exports are answered; then 200."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    """Of each span who made it."""
    batches: list[int] = field(default_factory=list)
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, *names: str) -> None:
        """Wait until spans of these names have come."""
        async with self._came:
            await self._came.wait_for(lambda: set(names) <= {span.name for span in self.spans})

    def named(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    async def _take(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers.copy())
        body = ExportTraceServiceRequest.FromString(await request.read())
        status, answer = self.answers.pop(0) if self.answers else (200, ExportTraceServiceResponse())
        if status == 200:
            before = len(self.spans)
            for resource in body.resource_spans:
                service = next(
                    each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
                )
                for scope in resource.scope_spans:
                    self.spans += scope.spans
                    self.services += [service] * len(scope.spans)
            self.batches.append(len(self.spans) - before)
            async with self._came:
                self._came.notify_all()
        return web.Response(status=status, body=answer.SerializeToString(), content_type="application/x-protobuf")


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """On a port of its own."""
    it = Collector()
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/v1/traces", it._take)
    async with on_loopback(app) as it.url:
        yield it


def attributes(span: Span) -> dict[str, object]:
    """A span's attributes as plain values."""
    found: dict[str, object] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found
