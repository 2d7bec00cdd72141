"""Carries an engine's answer onto the client's connection. Each chunk is one write, never held or joined."""

import asyncio
import json

from aiohttp import web
from multidict import CIMultiDict

from heliosd.api.errors import error_bytes, speaks_anthropic, with_stable_code
from heliosd.api.stall import STALLED_S, StallWatch
from heliosd.api.trace import TRACE
from heliosd.errors import EngineFailed, HeliosError

_TELLS_ERROR = (b'data: {"error"', b"event: error")
_NOT_OURS = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server", "x-request-id"})


class ClientReply:
    """Implements `engines.engine.Reply`. Only the body of an error is held back, to give it a stable code.

    A client that takes nothing for `stalled_s` is cut off. `close` it when the request is over.
    """

    def __init__(self, request: web.Request, stalled_s: float = STALLED_S) -> None:
        self._request = request
        self._writing = StallWatch(self._cut, stalled_s)
        self._trace = request[TRACE]
        self._anthropic = speaks_anthropic(request.path)
        self._response: web.StreamResponse | None = None
        self._events = False
        self._refusal: bytearray | None = None

    @property
    def begun(self) -> bool:
        """Something of the answer is decided; another one can no longer be given."""
        return self._response is not None

    @property
    def status(self) -> int | None:
        """The answer's, once it is begun."""
        return None if self._response is None else self._response.status

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        kept = CIMultiDict((name, value) for name, value in headers if name.lower() not in _NOT_OURS)
        self._events = kept.get("Content-Type", "").startswith("text/event-stream")
        if status >= 400 and not self._events:
            kept.popall("Content-Length", None)
            self._refusal = bytearray()
        elif self._events:
            kept.setdefault("Cache-Control", "no-cache")
            kept["X-Accel-Buffering"] = "no"  # a proxy in between must pass every event on at once
        self._response = web.StreamResponse(status=status, headers=kept)
        if self._refusal is None:
            await self._response.prepare(self._request)

    async def write(self, chunk: bytes) -> None:
        if self._refusal is not None:
            self._refusal += chunk
            return
        assert self._response is not None, "start() comes before write()"
        if self._events and chunk.startswith(_TELLS_ERROR):  # a stream breaks off: 200 was already said
            self._trace.code = _code_of(chunk.partition(b"data: ")[2])
        if self._trace.first_byte_s is None:
            self._trace.first_byte_s = asyncio.get_running_loop().time() - self._trace.started
        with self._writing:
            await self._response.write(chunk)

    async def finish(self) -> web.StreamResponse:
        """End the answer after the frontend has returned. Raises EngineFailed when it never began one."""
        if self._response is None:
            raise EngineFailed(f"cannot answer {self._request.path}: the engine ended without a word; ask again")
        if self._refusal is not None:
            body = with_stable_code(self._response.status, bytes(self._refusal), anthropic=self._anthropic)
            self._trace.code = _code_of(body)
            await self._response.prepare(self._request)
            with self._writing:
                await self._response.write(body)
        with self._writing:
            await self._response.write_eof()
        return self._response

    async def fail(self, error: HeliosError) -> web.StreamResponse:
        """Tell of an error after the answer has begun: as an event in a stream, else by cutting the connection."""
        assert self._response is not None, "an answer that was not begun is refused in the ordinary way"
        self._trace.code = error.code
        if self._events:
            body = error_bytes(error, anthropic=self._anthropic)
            event = (b"event: error\n" if self._anthropic else b"") + b"data: " + body + b"\n\n"
            with self._writing:
                await self._response.write(event)
                await self._response.write_eof()
        else:
            self._cut()
        return self._response

    def close(self) -> None:
        """No more is written."""
        self._writing.close()

    def _cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


def _code_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, TypeError, KeyError):
        return "engine_error"
