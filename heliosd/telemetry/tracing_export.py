"""Sends spans to a collector by OTLP over HTTP, from the event loop. One that is down costs spans, never a request."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from heliosd.telemetry.metrics import Metrics

log = logging.getLogger("heliosd.telemetry")

QUEUED_SPANS = 4096
"""That wait to be sent; beyond them new ones are dropped and counted."""
_BATCH = 512
_COLLECT_S = 0.5
"""A batch that is not full goes out after so long."""
_TIMEOUT_S = 5.0
_RETRIED = frozenset({408, 429, 502, 503, 504})
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_LAST_TRY_S = 2.0
"""For what is left when the daemon ends."""


class Exporter(SpanProcessor):
    """`run` sends what has ended. Spans may end in any thread."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], metrics: Metrics) -> None:
        self.url = traces_url(endpoint)
        self._headers = {**headers, "Content-Type": "application/x-protobuf"}
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._ended: deque[ReadableSpan] = deque()
        self._lock = threading.Lock()
        self._some, self._many = asyncio.Event(), asyncio.Event()
        self._failing = False
        self.sent = 0
        """Spans that the collector took."""
        self.dropped = 0
        self.error: str | None = None
        """Why the last try failed; None: it did not."""
        self.sent_at: float | None = None
        """When the collector took some last, in seconds since the epoch."""

    def on_end(self, span: ReadableSpan) -> None:
        if not span.context.trace_flags.sampled:
            return
        with self._lock:
            full, many = len(self._ended) >= QUEUED_SPANS, len(self._ended) + 1 >= _BATCH
            if not full:
                self._ended.append(span)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._drop if full else self._wake, 1 if full else many)

    def _wake(self, many: int) -> None:
        self._some.set()
        if many:
            self._many.set()

    def _drop(self, spans: int) -> None:
        self.dropped += spans
        self._metrics.spans_dropped(spans)

    async def run(self) -> None:
        """Send, batch by batch, until cancelled; then what is left gets one short try."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
            try:
                while True:
                    await self._some.wait()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_COLLECT_S):
                            await self._many.wait()
                    self._some.clear()
                    self._many.clear()
                    while batch := self._take():
                        await self._deliver(session, batch)
            finally:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_TRY_S):
                        while (batch := self._take()) and await self._send(session, batch) is None:
                            pass

    def _take(self) -> list[ReadableSpan]:
        with self._lock:
            return [self._ended.popleft() for _ in range(min(_BATCH, len(self._ended)))]

    async def _deliver(self, session: aiohttp.ClientSession, batch: list[ReadableSpan]) -> None:
        """Until the collector took it or refused it for good. Meanwhile the queue fills, and what is too much goes."""
        pause_s = _FIRST_PAUSE_S
        try:
            while (again := await self._send(session, batch)) is not None:
                await asyncio.sleep(max(again, pause_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        except asyncio.CancelledError:  # the daemon ends: rather sent twice than not at all
            with self._lock:
                self._ended.extendleft(reversed(batch))
            raise

    async def _send(self, session: aiohttp.ClientSession, batch: list[ReadableSpan]) -> float | None:
        """One try. Returns after how many seconds at least to try again; None: it is settled."""
        body = await asyncio.to_thread(lambda: encode_spans(batch).SerializeToString())
        try:
            async with session.post(self.url, data=body, headers=self._headers, allow_redirects=False) as response:
                answer, status = await response.read(), response.status
                after = response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError) as error:
            self._failed(f"cannot reach {_place(self.url)}: {error or 'it did not answer in time'}")
            return 0.0
        if status == 200:
            self._taken(len(batch), answer)
            return None
        self._failed(
            f"{_place(self.url)} answers {status}: {answer[:200].decode(errors='replace').strip() or 'nothing'}"
        )
        if status in _RETRIED:
            return min(float(after), _LONGEST_PAUSE_S) if after.isdecimal() else 0.0
        self._drop(len(batch))
        return None

    def _taken(self, spans: int, answer: bytes) -> None:
        try:
            partly = ExportTraceServiceResponse.FromString(answer).partial_success
            rejected, why = min(partly.rejected_spans, spans), partly.error_message
        except Exception as error:  # protobuf's DecodeError is made by whichever implementation is installed
            if type(error).__name__ != "DecodeError":
                raise
            rejected, why = 0, ""
        self.sent += spans - rejected
        self.sent_at = time.time()
        self._metrics.spans_sent(spans - rejected)
        if rejected:
            self._drop(rejected)
            self._failed(f"{_place(self.url)} rejected {rejected} of {spans} spans: {why}")
            return
        if self._failing:
            log.warning("traces are exported again", extra={"dropped": self.dropped})
        self._failing, self.error = False, None

    def _failed(self, why: str) -> None:
        """Said once, until it works again."""
        self.error = why
        if not self._failing:
            log.warning("traces are not exported", extra={"cause": why})
        self._failing = True


def traces_url(endpoint: str) -> str:
    """Where a collector takes traces; a URL without a path means the usual one."""
    return endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"


def _place(url: str) -> str:
    """Without the credentials and the query that it may have."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
