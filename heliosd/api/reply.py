"""Carries an engine's answer onto the client's connection. Each chunk is one write, never held or joined."""

import asyncio
import json

from aiohttp import web
from multidict import CIMultiDict

from heliosd.api.errors import error_bytes, speaks_anthropic, with_stable_code
from heliosd.api.sse import HEADERS
from heliosd.api.stall import STALLED_S, StallWatch
from heliosd.api.trace import TRACE
from heliosd.errors import EngineFailed, HeliosError

_TELLS_ERROR = (b'data: {"error"', b"event: error")
_NOT_OURS = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server", "x-request-id"})


class ClientReply:
    """Implements `engines.engine.Reply`. Only the body of an error is held back, to give it a stable code.

    A client that waits for a stream can be told so with `hold`, which begins the stream. What comes then comes in it:
    the engine's events as they are, its refusal as an event that tells the error.
    A client that takes nothing for `stalled_s` is cut off. `close` it when the request is over.
    """

    def __init__(self, request: web.Request, stalled_s: float = STALLED_S) -> None:
        self._request = request
        self._writing = StallWatch(self._cut, stalled_s)
        self._trace = request[TRACE]
        self._anthropic = speaks_anthropic(request.path)
        self._response: web.StreamResponse | None = None
        self._events = False
        self._held = False
        self._started = False
        self._wrote = False
        self._status = 200
        self._whole: bytearray | None = None
        """An answer that is told when it is whole: a refusal, or what is no event and comes into a begun stream."""

    @property
    def begun(self) -> bool:
        """Something of the answer is decided; another one can no longer be given."""
        return self._response is not None

    @property
    def status(self) -> int | None:
        """The answer's, once it is begun."""
        return None if self._response is None else self._status

    @property
    def repeatable(self) -> bool:
        """Nothing of an answer has reached the client, so that another engine may begin it anew."""
        return self._response is None or (self._events and not self._wrote)

    def again(self) -> None:
        """Forget what an engine began that died before its first word. Only what is `repeatable`."""
        self._held, self._started, self._whole = self._response is not None, False, None

    async def hold(self, comment: str) -> None:
        """Say something to a client that waits, as a comment of the stream that is to come."""
        if self._response is None:
            self._held = self._events = True
            self._response = web.StreamResponse(headers=HEADERS)
            await self._response.prepare(self._request)
        with self._writing:
            await self._response.write(f": {comment}\n\n".encode())

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        kept = CIMultiDict((name, value) for name, value in headers if name.lower() not in _NOT_OURS)
        events = kept.get("Content-Type", "").startswith("text/event-stream")
        self._started, self._status = True, status
        if not events and (status >= 400 or self._held):
            self._whole = bytearray()
        if self._held:  # the head is out
            return
        self._events = events
        if self._whole is not None:
            kept.popall("Content-Length", None)
        elif self._events:
            kept.setdefault("Cache-Control", "no-cache")
            kept["X-Accel-Buffering"] = "no"  # a proxy in between must pass every event on at once
        self._response = web.StreamResponse(status=status, headers=kept)
        if self._whole is None:
            await self._response.prepare(self._request)

    async def write(self, chunk: bytes) -> None:
        if self._whole is not None:
            self._whole += chunk
            return
        assert self._response is not None, "start() comes before write()"
        self._wrote = True
        if self._events and chunk.startswith(_TELLS_ERROR):  # a stream breaks off: 200 was already said
            self._trace.code = _code_of(chunk.partition(b"data: ")[2])
        if self._trace.first_byte_s is None:
            self._trace.first_byte_s = asyncio.get_running_loop().time() - self._trace.started
            if self._trace.spans is not None:
                self._trace.spans.first_byte()
        with self._writing:
            await self._response.write(chunk)

    async def finish(self) -> web.StreamResponse:
        """End the answer after the frontend has returned. Raises EngineFailed when it never began one."""
        if not self._started or self._response is None:
            silent = EngineFailed(f"cannot answer {self._request.path}: the engine ended without a word; ask again")
            if not self._held:
                raise silent
            return await self.fail(silent)
        if self._whole is not None:
            body = bytes(self._whole)
            if self._status >= 400:
                body = with_stable_code(self._status, body, anthropic=self._anthropic)
                self._trace.code = _code_of(body)
            if self._held:
                body = self._event(body, error=self._status >= 400)
            else:
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
            with self._writing:
                await self._response.write(self._event(error_bytes(error, anthropic=self._anthropic), error=True))
                await self._response.write_eof()
        else:
            self._cut()
        return self._response

    def _event(self, body: bytes, *, error: bool) -> bytes:
        named = b"event: error\n" if error and self._anthropic else b""
        return named + b"".join(b"data: " + line + b"\n" for line in body.splitlines()) + b"\n"

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
