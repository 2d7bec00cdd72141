"""How the stand-in daemon answers: with events as they come, or with an error."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from heliosd.wire import ErrorBody, ErrorDetail

RESPONSE = web.RequestKey("response", web.StreamResponse)
"""The events that a request is answered with."""


class Refusal(Exception):
    """Makes a route answer with an ErrorBody."""

    def __init__(self, status: int, code: str, message: str, cause: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        detail = ErrorDetail(message=message, type="invalid_request_error", code=code, cause=cause)
        self.body = ErrorBody(error=detail).model_dump_json()


@asynccontextmanager
async def sse(request: web.Request) -> AsyncIterator[Callable[..., Any]]:
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-request-id": "t-1"})
    request[RESPONSE] = response
    await response.prepare(request)

    async def send(kind: str | None, data: str, number: str | None = None) -> None:
        lines = [f"id: {number}"] if number else []
        lines += [f"event: {kind}"] if kind else []
        await response.write("\n".join([*lines, f"data: {data}", "", ""]).encode())

    yield send
