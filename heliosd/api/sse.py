"""Server-sent events: frames, and a stream that a slow reader cannot make grow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from pydantic import BaseModel

KEEP_ALIVE_S = 15.0
STALLED_S = 30.0
"""A reader that takes nothing for so long is gone."""

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy in between must pass every event on at once
}

LAST_FRAME = web.RequestKey("last_frame", bytes)
"""What a stream told last, apart from comments: how it ended."""

_COMMENT = b": keep-alive\n\n"


def frame(event: str, data: BaseModel, *, id: int | None = None) -> bytes:
    """One event. JSON has no raw line breaks, so `data` is one line."""
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {event}\ndata: {data.model_dump_json()}\n\n".encode()


class EventStream:
    """An opened event stream; frames are written in the order of the calls."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response
        self._turn = asyncio.Lock()

    async def send(self, chunk: bytes) -> None:
        """Write, waiting for the reader if it is slow. Raises ConnectionResetError when it is gone or stalled."""
        if not chunk.startswith(b":"):
            self._request[LAST_FRAME] = chunk
        async with self._turn:
            try:
                async with asyncio.timeout(STALLED_S):
                    await self._response.write(chunk)
            except TimeoutError:
                self.drop()
                raise ConnectionResetError("the reader of an event stream takes nothing") from None

    async def keep_alive(self, period_s: float = KEEP_ALIVE_S) -> None:
        """Write a comment every so often, for ever, so that proxies and clients see that the stream lives."""
        while True:
            await asyncio.sleep(period_s)
            await self.send(_COMMENT)

    def drop(self) -> None:
        """Cut the connection: the reader must see that it missed something."""
        if self._request.transport is not None:
            self._request.transport.abort()


@asynccontextmanager
async def event_stream(request: web.Request) -> AsyncIterator[tuple[EventStream, web.StreamResponse]]:
    """Open a stream: the headers are sent at once, and the end when the block is left normally."""
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    await response.write(b": stream\n\n")  # headers wait for the first byte of the body
    yield EventStream(request, response), response
    await response.write_eof()
