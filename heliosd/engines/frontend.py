"""Answers requests for one vLLM engine with vLLM's own handlers, and says so when the engine died meanwhile."""

import json
import logging
from collections.abc import Awaitable, Callable

from heliosd.core.gist import gist
from heliosd.engines import asgi
from heliosd.engines.engine import Reply, Request
from heliosd.engines.meter import METER
from heliosd.errors import EngineFailed

log = logging.getLogger("heliosd.engines")


class VllmFrontend:
    """vLLM's handlers over one engine's state."""

    def __init__(
        self,
        application: asgi.Application,
        served: object,
        name: str,
        errored: Callable[[], bool],
        cause: Callable[[], Awaitable[str]],
        asleep: Callable[[], bool],
    ) -> None:
        self._application = application
        self._served = served
        self._name = name
        self._errored = errored
        self._cause = cause
        self._asleep = asleep

    async def handle(self, request: Request, reply: Reply) -> None:
        if self._asleep():  # vLLM would take it and not answer
            raise EngineFailed(f"cannot answer: {self._name} sleeps; wake it first")
        watched = _Watched(self, reply)
        metered = METER.set(request.meter)
        try:
            await asgi.call(self._application, self._served, request, watched, watched.look)
        except EngineFailed:
            raise
        except Exception as error:
            if watched.failure is not None:
                raise watched.failure from error
            if watched.gone is not None:  # Starlette makes its own error of it
                raise watched.gone from error
            # Starlette answers with vLLM's error body and then raises what caused it, for a server to log.
            if not watched.started:
                raise
            log.exception("request failed inside vLLM", extra={"ticket": request.ticket, "model": self._name})
        finally:
            METER.reset(metered)

    async def failure(self) -> EngineFailed:
        """The error that names what the engine died of."""
        cause = await self._cause()
        return EngineFailed(f"cannot answer: the engine of {self._name} died: {gist(cause)}", cause=cause)


class _Watched:
    """Stands before the reply and replaces vLLM's generic error by the cause, when the engine is dead."""

    def __init__(self, frontend: VllmFrontend, reply: Reply) -> None:
        self._frontend = frontend
        self._reply = reply
        self.started = False
        self.gone: ConnectionError | None = None
        """How writing failed, once the client has left."""
        self.wrote = False
        self.failure: EngineFailed | None = None
        """Of an engine that died before anything of its answer was written."""

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.started = True
        await self._told(self._reply.start(status, headers))

    async def write(self, chunk: bytes) -> None:
        self.wrote = True
        await self._told(self._reply.write(chunk))

    async def _told(self, telling: Awaitable[None]) -> None:
        try:
            await telling
        except ConnectionError as error:
            self.gone = error
            raise

    async def look(self, status: int | None, chunk: bytes) -> bytes:
        failed = (status is not None and status >= 500) or _tells_error(chunk)
        if not failed or not self._frontend._errored():
            return chunk
        failure = await self._frontend.failure()
        if status is not None or not self.wrote:
            self.failure = failure
            raise failure
        error = {"message": failure.message, "type": "engine_failed", "param": None, "code": failure.code}
        if chunk.startswith(b"event: "):
            told = {"type": "error", "error": error}
            return b"event: error\ndata: " + json.dumps(told).encode() + b"\n\n"
        return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"


def _tells_error(chunk: bytes) -> bool:
    return chunk.startswith((b'data: {"error"', b"event: error"))
